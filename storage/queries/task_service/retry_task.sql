-- RetryTask: what ended without success waits again, as if it were new; its journal stays.
WITH before AS (
  SELECT t.version::text AS etag, t.state, t.filed_time <> 'infinity' AS filed,
         t.state IN ('FAILED', 'CANCELLED', 'CANCEL_UNCONFIRMED', 'DEAD') AS retryable
    FROM tasks t
   WHERE t.organization_id = :organization_id AND t.task_id = :task_id FOR UPDATE
), after AS (
  UPDATE tasks t
     SET state = 'PENDING', state_reason = 'RETRIED', state_actor = :caller_id, start_count = 0, end_time = NULL,
         failure_reason = '', failure_message = '', failure_permanent = false, outputs = '{}', cancel_mode = NULL,
         cancel_grace = NULL, cancel_reason = '', cancel_caller = '', cancel_time = NULL, cancel_answer = 0,
         next_attempt_time = now(), expire_time = now() + t.time_to_live
    FROM before
   WHERE t.organization_id = :organization_id AND t.task_id = :task_id AND t.filed_time = 'infinity'
     AND :etag IN ('', before.etag) AND before.retryable AND NOT before.filed
  RETURNING t AS task
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH'
            WHEN NOT before.retryable           THEN 'TASK_NOT_RETRYABLE'
            WHEN before.filed                   THEN 'TASK_FILED' END AS refusal,
       before.state AS refusal_state, message.*, (after.task).payload
  FROM before
  LEFT JOIN after ON true
  LEFT JOIN LATERAL task_message(after.task, :organization_slug) message ON true;
