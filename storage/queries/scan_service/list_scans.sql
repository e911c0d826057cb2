-- ListScans: newest first.
SELECT message.*, s.scan_id AS after_scan_id
  FROM scans s, scan_message(s, :organization_slug) message
 WHERE s.organization_id = :organization_id
   AND s.scan_id < coalesce(:after_scan_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
 ORDER BY s.scan_id DESC
 LIMIT :page_limit;
