-- ListFindingEvents: the history of a finding, oldest first. Every finding has an event: no row, no such finding.
-- The bounds are CASE, not coalesce(): row-level security lets only what cannot leak into an index condition.
SELECT e.event_time, e.from_state, e.to_state, e.actor,
       'organizations/' || :organization_slug || '/scans/' || e.scan_id AS scan, e.reason, e.expire_time,
       e.event_time AS after_event_time, e.version AS after_version
  FROM finding_events e
 WHERE e.organization_id = :organization_id AND e.finding_id = :finding_id
   AND (e.event_time, e.version) > (CASE WHEN :after_event_time::timestamptz IS NULL THEN '-infinity'::timestamptz
                                         ELSE :after_event_time END,
                                    CASE WHEN :after_version::int4 IS NULL THEN 0 ELSE :after_version END)
 ORDER BY e.event_time, e.version
 LIMIT :page_limit;
