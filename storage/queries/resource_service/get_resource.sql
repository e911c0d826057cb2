-- GetResource: one resource.
SELECT 'organizations/' || :organization_slug || '/resources/' || r.resource_id AS name, r.resource_id AS uid,
       'organizations/' || :organization_slug || '/cloudAccounts/' || r.cloud_account_id AS cloud_account,
       r.resource_uid, r.display_name, r.type, r.service, r.region, r.labels, r.metadata_json,
       active.critical AS "active_findings.critical", active.high AS "active_findings.high",
       active.medium AS "active_findings.medium", active.low AS "active_findings.low",
       active.other AS "active_findings.other", r.create_time, r.update_time
  FROM resources r
  CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE f.severity >= 6)::int4 AS critical,
           count(*) FILTER (WHERE f.severity = 5)::int4 AS high,
           count(*) FILTER (WHERE f.severity = 4)::int4 AS medium, count(*) FILTER (WHERE f.severity = 3)::int4 AS low,
           count(*) FILTER (WHERE f.severity < 3)::int4 AS other
      FROM findings f
     WHERE f.organization_id = :organization_id AND f.cloud_account_id = r.cloud_account_id
       AND f.resource_id = r.resource_id AND state_now(f) IN ('OPEN', 'ACKNOWLEDGED')) active
 WHERE r.organization_id = :organization_id AND r.resource_id = :resource_id;
