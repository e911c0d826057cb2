-- GetScan: one scan.
SELECT message.*
  FROM scans s, scan_message(s, :organization_slug) message
 WHERE s.organization_id = :organization_id AND s.scan_id = :scan_id;
