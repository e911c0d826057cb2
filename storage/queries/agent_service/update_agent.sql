-- UpdateAgent: the display name.
-- unset: secret
WITH before AS (
  SELECT version::text AS etag FROM agents
   WHERE organization_id = :organization_id AND agent_id = :agent_id FOR UPDATE
), after AS (
  UPDATE agents a
     SET display_name = CASE WHEN 'display_name' = ANY (:update_mask) THEN :display_name ELSE a.display_name END
    FROM before
   WHERE a.organization_id = :organization_id AND a.agent_id = :agent_id AND :etag IN ('', before.etag)
  RETURNING a AS agent
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH' END AS refusal, message.*
  FROM before
  LEFT JOIN after ON true
  LEFT JOIN LATERAL agent_message(after.agent, :organization_slug) message ON true;
