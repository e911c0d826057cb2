-- ListTasks: newest first, without payloads.
-- The page is cut before it is joined, and holds no row as a whole: that would read its payload. The bounds are CASE, not
-- coalesce(): row-level security lets only what cannot leak into an index condition.
-- unset: payload
SELECT message.*, page.task_id AS after_task_id
  FROM (
    SELECT t.task_id, t.filed_time FROM tasks t
     WHERE t.organization_id = :organization_id
       AND t.task_id < CASE WHEN :after_task_id::uuid IS NULL THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
                            ELSE :after_task_id END
     ORDER BY t.task_id DESC
     LIMIT :page_limit) page
  JOIN tasks t
    ON t.organization_id = :organization_id AND t.task_id = page.task_id AND t.filed_time = page.filed_time
 CROSS JOIN task_message(t, :organization_slug) message
 ORDER BY page.task_id DESC;
