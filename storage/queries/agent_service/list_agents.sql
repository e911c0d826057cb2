-- ListAgents: newest first.
-- The page is cut before it is joined. The bounds are CASE, not coalesce(): row-level security lets only what cannot
-- leak into an index condition.
-- unset: secret
SELECT message.*, page.agent_id AS after_agent_id
  FROM (
    SELECT a AS agent, a.agent_id FROM agents a
     WHERE a.organization_id = :organization_id
       AND a.agent_id < CASE WHEN :after_agent_id::uuid IS NULL THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
                             ELSE :after_agent_id END
     ORDER BY a.agent_id DESC
     LIMIT :page_limit) page,
       agent_message(page.agent, :organization_slug) message
 ORDER BY page.agent_id DESC;
