-- CancelTask: what waits ends at once, what runs is to be stopped.
SELECT after.refusal, after.state AS refusal_state, message.*, (after.task).payload
  FROM cancel_task(:organization_id, :task_id, :etag, :mode::text, :grace, :reason, :caller_id) after
  LEFT JOIN LATERAL task_message(after.task, :organization_slug) message ON true;
