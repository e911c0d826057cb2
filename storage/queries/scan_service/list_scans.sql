-- ListScans: newest first.
-- The bounds are CASE, not coalesce(): row-level security lets only what cannot leak into an index condition.
SELECT message.*, s.scan_id AS after_scan_id
  FROM scans s, scan_message(s, :organization_slug) message
 WHERE s.organization_id = :organization_id
   AND s.scan_id < CASE WHEN :after_scan_id::uuid IS NULL THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
                        ELSE :after_scan_id END
 ORDER BY s.scan_id DESC
 LIMIT :page_limit;
