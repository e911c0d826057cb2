-- Finds the agent of a key's prefix, with its organization.
SELECT organization_id, organization_slug, organization_deleted, agent_id, agent_key_id, secret_sha256, expire_time
  FROM find_agent_key(:key_prefix);
