-- Reads on in the log of an attempt: of each part up to 16 pieces. A row without data where there are none. No row: no
-- such task.
WITH task AS (
  SELECT t.task_id, t.state, coalesce(nullif(:attempt::int4, 0), last.attempt, 0) AS attempt,
         coalesce(last.attempt, 0) AS last_attempt
    FROM tasks t
    LEFT JOIN LATERAL (SELECT max(attempt) AS attempt FROM task_attempts a
                        WHERE a.organization_id = t.organization_id AND a.task_id = t.task_id) last ON true
   WHERE t.organization_id = :organization_id AND t.task_id = :task_id
), piece AS (
  (SELECT l.stream, l.log_offset, l.data, l.log_time FROM task, task_logs l
    WHERE l.organization_id = :organization_id AND l.task_id = task.task_id AND l.attempt = task.attempt
      AND l.stream = 1 AND :log_stream::int4 IN (0, 1)
      AND l.log_offset > :stdout_offset::int8 - 65536 AND l.log_offset + length(l.data) > :stdout_offset
    ORDER BY l.log_offset LIMIT 16)
  UNION ALL
  (SELECT l.stream, l.log_offset, l.data, l.log_time FROM task, task_logs l
    WHERE l.organization_id = :organization_id AND l.task_id = task.task_id AND l.attempt = task.attempt
      AND l.stream = 2 AND :log_stream IN (0, 2)
      AND l.log_offset > :stderr_offset::int8 - 65536 AND l.log_offset + length(l.data) > :stderr_offset
    ORDER BY l.log_offset LIMIT 16)
)
SELECT task.attempt, task.last_attempt,
       (SELECT min(n.attempt) FROM task_attempts n
         WHERE n.organization_id = :organization_id AND n.task_id = task.task_id AND n.attempt > task.attempt)
         AS next_attempt,
       task.state IN ('SUCCEEDED', 'FAILED', 'CANCELLED', 'CANCEL_UNCONFIRMED', 'DEAD') AS task_ended,
       a.attempt IS NOT NULL AS started, a.end_time IS NOT NULL AS attempt_ended,
       a.outcome <> 'LEASE_LOST' AND (a.stdout_offset < a.stdout_end OR a.stderr_offset < a.stderr_end)
         AND a.end_time > now() - interval '1 minute' AS more_comes,  -- an agent that dies with its result sends no more
       a.stdout_offset, a.stderr_offset, piece.stream, piece.log_offset, piece.data, piece.log_time
  FROM task
  LEFT JOIN task_attempts a
    ON a.organization_id = :organization_id AND a.task_id = task.task_id AND a.attempt = task.attempt
  LEFT JOIN piece ON true
 ORDER BY piece.stream, piece.log_offset;
