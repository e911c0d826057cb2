-- ListAuditEvents: newest first.
-- The bounds are CASE, not coalesce(): row-level security lets only what cannot leak into an index condition.
SELECT event_time, caller, method, request_id, operation, collection, resource_uid, row_count, changes_json,
       event_time AS after_event_time, audit_event_id AS after_audit_event_id
  FROM audit_events
 WHERE organization_id = :organization_id
   AND (event_time, audit_event_id)
     < (CASE WHEN :after_event_time::timestamptz IS NULL THEN 'infinity'::timestamptz ELSE :after_event_time END,
        CASE WHEN :after_audit_event_id::uuid IS NULL THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
             ELSE :after_audit_event_id END)
 ORDER BY event_time DESC, audit_event_id DESC
 LIMIT :page_limit;
