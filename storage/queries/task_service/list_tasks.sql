-- ListTasks: newest first, without payloads.
-- The page is cut before it is joined, and takes each row apart: as a whole it would bring its payload along. The bounds
-- are CASE, not coalesce(): row-level security lets only what cannot leak into an index condition.
-- unset: payload
SELECT message.*, page.task_id AS after_task_id
  FROM (
    SELECT t.organization_id, t.task_id, t.filed_time, t.kind, NULL::bytea, t.labels, t.target_agent_id, t.priority,
           t.time_to_live, t.max_attempts, t.idempotency_key, t.creator, t.state, t.state_reason, t.state_actor,
           t.event_position, t.attempt, t.fence, t.start_count, t.agent_id, t.failure_reason, t.failure_message, t.failure_permanent,
           t.outputs, t.cancel_mode, t.cancel_grace, t.cancel_reason, t.cancel_caller, t.cancel_time, t.cancel_answer,
           t.version, t.create_time, t.update_time, t.next_attempt_time, t.expire_time, t.start_time, t.end_time
      FROM tasks t
     WHERE t.organization_id = :organization_id
       AND t.task_id < CASE WHEN :after_task_id::uuid IS NULL THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
                            ELSE :after_task_id END
     ORDER BY t.task_id DESC
     LIMIT :page_limit) page,
       task_message(ROW(page.*)::tasks, :organization_slug) message
 ORDER BY page.task_id DESC;
