-- ListFindings: the most severe first, then the newest.
-- The page is cut before it is joined, so that no estimate makes the planner join an organization's all. The bounds are
-- CASE, not coalesce(): row-level security lets only what cannot leak into an index condition.
SELECT message.*, page.severity AS after_severity, page.finding_id AS after_finding_id
  FROM (
    SELECT f AS finding, f.severity, f.finding_id
      FROM findings f
     WHERE f.organization_id = :organization_id
       AND (f.severity, f.finding_id)
         < (CASE WHEN :after_severity::int2 IS NULL THEN 32767::int2 ELSE :after_severity END,
            CASE WHEN :after_finding_id::uuid IS NULL THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
                 ELSE :after_finding_id END)
     ORDER BY f.severity DESC, f.finding_id DESC
     LIMIT :page_limit) page,
       finding_message(page.finding, :organization_slug) message
 ORDER BY page.severity DESC, page.finding_id DESC;
