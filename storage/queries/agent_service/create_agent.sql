-- CreateAgent: an agent and its first key, which is known here by its hash alone.
-- unset: secret
WITH earlier AS (
  SELECT a AS agent, NULL AS new_key_prefix FROM agents a
   WHERE a.organization_id = :organization_id AND a.request_id = nullif(:request_id, '')::uuid
), made AS (
  INSERT INTO agents AS a (organization_id, agent_id, display_name, creator, request_id)
    SELECT :organization_id, :new_id, :display_name, :caller_id, nullif(:request_id, '')::uuid
     WHERE NOT EXISTS (SELECT FROM earlier)
  ON CONFLICT (organization_id, request_id) WHERE request_id IS NOT NULL DO NOTHING
  RETURNING a AS agent, organization_id, agent_id
), key AS (
  INSERT INTO agent_keys (organization_id, agent_id, agent_key_id, key_prefix, secret_sha256)
    SELECT organization_id, agent_id, uuid_v7(), :key_prefix, :secret_sha256 FROM made
  RETURNING *
), found AS (
  INSERT INTO agent_key_prefixes (key_prefix, organization_id, agent_id, agent_key_id)
    SELECT key_prefix, organization_id, agent_id, agent_key_id FROM key
)
SELECT message.*
  FROM (SELECT * FROM earlier UNION ALL SELECT made.agent, key.key_prefix FROM made, key) answer,
       agent_message(answer.agent, :organization_slug, answer.new_key_prefix) message;
