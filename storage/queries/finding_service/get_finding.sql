-- GetFinding: one finding.
SELECT message.*
  FROM findings f, finding_message(f, :organization_slug) message
 WHERE f.organization_id = :organization_id AND f.finding_id = :finding_id;
