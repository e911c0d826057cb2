-- RotateAgentKey: a new key and an end for the older ones; or a key that is to be handed over in the channel.
-- unset: secret
WITH before AS (
  SELECT version::text AS etag FROM agents
   WHERE organization_id = :organization_id AND agent_id = :agent_id FOR UPDATE
), after AS (
  UPDATE agents a
     SET key_offer_time = CASE WHEN :in_channel THEN now() END,
         key_offer_overlap = CASE WHEN :in_channel THEN coalesce(:overlap, interval '1 day') END
    FROM before
   WHERE a.organization_id = :organization_id AND a.agent_id = :agent_id AND :etag IN ('', before.etag)
  RETURNING a AS agent, organization_id, agent_id
), void AS (
  -- What has ended, and what was offered and has not been used.
  DELETE FROM agent_keys k USING after
   WHERE k.organization_id = :organization_id AND k.agent_id = after.agent_id AND NOT :in_channel
     AND (k.offered OR k.expire_time <= now())
), ending AS (
  UPDATE agent_keys k SET expire_time = least(k.expire_time, now() + coalesce(:overlap, interval '1 day'))
    FROM after
   WHERE k.organization_id = :organization_id AND k.agent_id = after.agent_id AND NOT :in_channel
     AND NOT (k.offered OR coalesce(k.expire_time <= now(), false))
), key AS (
  INSERT INTO agent_keys (organization_id, agent_id, agent_key_id, key_prefix, secret_sha256)
    SELECT organization_id, agent_id, :new_id, :key_prefix, :secret_sha256 FROM after WHERE NOT :in_channel
  RETURNING *
), found AS (
  INSERT INTO agent_key_prefixes (key_prefix, organization_id, agent_id, agent_key_id)
    SELECT key_prefix, organization_id, agent_id, agent_key_id FROM key
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH' END AS refusal, message.*
  FROM before
  LEFT JOIN after ON true
  LEFT JOIN key ON true
  LEFT JOIN LATERAL agent_message(after.agent, :organization_slug, key.key_prefix) message ON true;
