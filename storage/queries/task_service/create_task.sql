-- CreateTask: a task that waits. Its key is taken first, so that of several at once one wins; the others give no row, are
-- run again, and find what it made.
WITH earlier AS (
  SELECT task_id FROM task_keys
   WHERE organization_id = :organization_id AND request_id = nullif(:request_id, '')::uuid
), refused AS (
  SELECT 'TASK_EXISTS' AS refusal, 'organizations/' || :organization_slug || '/tasks/' || k.task_id AS refusal_task
    FROM task_keys k
   WHERE k.organization_id = :organization_id AND k.idempotency_key = :idempotency_key
     AND NOT EXISTS (SELECT FROM earlier)
  UNION ALL
  SELECT 'TARGET_AGENT_UNKNOWN', NULL
   WHERE :target_agent <> '' AND NOT EXISTS (SELECT FROM earlier)
     AND NOT EXISTS (SELECT FROM agents a
                      WHERE a.organization_id = :organization_id AND a.agent_id = right(nullif(:target_agent, ''), 36)::uuid)
), keyed AS (
  INSERT INTO task_keys (organization_id, idempotency_key, task_id, request_id)
    SELECT :organization_id, CASE :idempotency_key WHEN '' THEN :new_id::uuid::text ELSE :idempotency_key END, :new_id,
           nullif(:request_id, '')::uuid
     WHERE NOT EXISTS (SELECT FROM earlier) AND NOT EXISTS (SELECT FROM refused)
  ON CONFLICT DO NOTHING
  RETURNING *
), made AS (
  INSERT INTO tasks AS t (organization_id, task_id, kind, payload, labels, target_agent_id, priority, time_to_live,
                          max_attempts, idempotency_key, creator, state_actor, expire_time)
    SELECT organization_id, task_id, :kind, :payload, :labels, right(nullif(:target_agent, ''), 36)::uuid, :priority,
           coalesce(:time_to_live, interval '1 day'), coalesce(nullif(:max_attempts, 0), 3), idempotency_key,
           :caller_id, :caller_id, now() + coalesce(:time_to_live, interval '1 day')
      FROM keyed
  RETURNING t AS task
), known AS (
  SELECT t AS task FROM tasks t JOIN earlier USING (task_id) WHERE t.organization_id = :organization_id
)
SELECT refused.refusal, refused.refusal_task, answer.*
  FROM (SELECT message.*, (one.task).payload
          FROM (SELECT * FROM known UNION ALL SELECT * FROM made) one,
               task_message(one.task, :organization_slug) message) answer
  FULL JOIN refused ON false;
