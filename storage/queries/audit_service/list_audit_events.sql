-- ListAuditEvents: newest first.
SELECT event_time, caller, method, request_id, operation, collection, resource_uid, row_count, changes_json,
       event_time AS after_event_time, audit_event_id AS after_audit_event_id
  FROM audit_events
 WHERE organization_id = :organization_id
   AND (event_time, audit_event_id)
     < (coalesce(:after_event_time::timestamptz, 'infinity'::timestamptz),
        coalesce(:after_audit_event_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
 ORDER BY event_time DESC, audit_event_id DESC
 LIMIT :page_limit;
