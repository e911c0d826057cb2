-- ListResources: newest first.
-- The page is cut before it is joined. The bounds are CASE, not coalesce(): row-level security lets only what cannot
-- leak into an index condition.
SELECT 'organizations/' || :organization_slug || '/resources/' || r.resource_id AS name, r.resource_id AS uid,
       'organizations/' || :organization_slug || '/cloudAccounts/' || r.cloud_account_id AS cloud_account,
       r.resource_uid, r.display_name, r.type, r.service, r.region, r.labels, r.metadata_json,
       active.critical AS "active_findings.critical", active.high AS "active_findings.high",
       active.medium AS "active_findings.medium", active.low AS "active_findings.low",
       active.other AS "active_findings.other", r.create_time, r.update_time,
       r.resource_id AS after_resource_id
  FROM (
    SELECT * FROM resources
     WHERE organization_id = :organization_id
       AND resource_id < CASE WHEN :after_resource_id::uuid IS NULL THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
                              ELSE :after_resource_id END
     ORDER BY resource_id DESC
     LIMIT :page_limit) r
  CROSS JOIN LATERAL active_findings(:organization_id, r.cloud_account_id, r.resource_id) active
 ORDER BY r.resource_id DESC;
