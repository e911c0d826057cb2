-- DeleteAgent: the agent with its keys and its session.
WITH before AS (
  SELECT version::text AS etag FROM agents
   WHERE organization_id = :organization_id AND agent_id = :agent_id FOR UPDATE
), deleted AS (
  DELETE FROM agents a USING before
   WHERE a.organization_id = :organization_id AND a.agent_id = :agent_id AND :etag IN ('', before.etag)
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH' END AS refusal FROM before;
