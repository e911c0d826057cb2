-- ListFindings: the most severe first, then the newest.
SELECT message.*, f.severity AS after_severity, f.finding_id AS after_finding_id
  FROM findings f, finding_message(f, :organization_slug) message
 WHERE f.organization_id = :organization_id
   AND (f.severity, f.finding_id)
     < (coalesce(:after_severity::int2, 32767::int2),
        coalesce(:after_finding_id::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
 ORDER BY f.severity DESC, f.finding_id DESC
 LIMIT :page_limit;
