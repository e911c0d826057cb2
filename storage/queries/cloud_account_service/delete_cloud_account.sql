-- DeleteCloudAccount: the account with all that is known of it, unless a scan runs.
WITH before AS (
  SELECT version::text AS etag,
         EXISTS (SELECT FROM scans s JOIN import_runs r USING (organization_id, scan_id)
                  WHERE s.organization_id = :organization_id AND s.cloud_account_id = a.cloud_account_id
                    AND s.state = 'RUNNING' AND r.lease_time > now()) AS scan_running
    FROM cloud_accounts a
   WHERE organization_id = :organization_id AND cloud_account_id = :cloud_account_id FOR UPDATE
), deleted AS (
  DELETE FROM cloud_accounts a USING before
   WHERE a.organization_id = :organization_id AND a.cloud_account_id = :cloud_account_id
     AND :etag IN ('', before.etag) AND NOT before.scan_running
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH'
            WHEN before.scan_running         THEN 'SCAN_RUNNING' END AS refusal
  FROM before;
