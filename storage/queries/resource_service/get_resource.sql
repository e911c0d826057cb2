-- GetResource: one resource.
SELECT 'organizations/' || :organization_slug || '/resources/' || r.resource_id AS name, r.resource_id AS uid,
       'organizations/' || :organization_slug || '/cloudAccounts/' || r.cloud_account_id AS cloud_account,
       r.resource_uid, r.display_name, r.type, r.service, r.region, r.labels, r.metadata_json,
       active.critical AS "active_findings.critical", active.high AS "active_findings.high",
       active.medium AS "active_findings.medium", active.low AS "active_findings.low",
       active.other AS "active_findings.other", r.create_time, r.update_time
  FROM resources r
  CROSS JOIN LATERAL active_findings(:organization_id, r.cloud_account_id, r.resource_id) active
 WHERE r.organization_id = :organization_id AND r.resource_id = :resource_id;
