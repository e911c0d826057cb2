-- ListFindingEvents: the history of a finding, oldest first.
SELECT e.event_time, e.from_state, e.to_state, e.actor,
       'organizations/' || :organization_slug || '/scans/' || e.scan_id AS scan, e.reason, e.expire_time,
       e.event_time AS after_event_time, e.version AS after_version
  FROM finding_events e
 WHERE e.organization_id = :organization_id AND e.finding_id = :finding_id
   AND (e.event_time, e.version) > (coalesce(:after_event_time::timestamptz, '-infinity'::timestamptz),
                                    coalesce(:after_version::int4, 0))
 ORDER BY e.event_time, e.version
 LIMIT :page_limit;
