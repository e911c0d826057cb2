-- GetTask: one task.
SELECT message.*, t.payload
  FROM tasks t, task_message(t, :organization_slug) message
 WHERE t.organization_id = :organization_id AND t.task_id = :task_id;
