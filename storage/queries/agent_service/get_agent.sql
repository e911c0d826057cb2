-- GetAgent: one agent, without a key's secret.
-- unset: secret
SELECT message.*
  FROM agents a, agent_message(a, :organization_slug) message
 WHERE a.organization_id = :organization_id AND a.agent_id = :agent_id;
