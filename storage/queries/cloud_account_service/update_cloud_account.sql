-- UpdateCloudAccount: the display name.
WITH before AS (
  SELECT version::text AS etag FROM cloud_accounts
   WHERE organization_id = :organization_id AND cloud_account_id = :cloud_account_id FOR UPDATE
), after AS (
  UPDATE cloud_accounts a
     SET display_name = CASE WHEN 'display_name' = ANY (:update_mask) THEN :display_name ELSE a.display_name END
    FROM before
   WHERE a.organization_id = :organization_id AND a.cloud_account_id = :cloud_account_id AND :etag IN ('', before.etag)
  RETURNING a.*
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH' END AS refusal,
       'organizations/' || :organization_slug || '/cloudAccounts/' || after.cloud_account_id AS name,
       after.cloud_account_id AS uid, after.provider, after.account_uid, after.display_name, after.external_id,
       after.credentials_time,
       'organizations/' || :organization_slug || '/scans/' || after.last_scan_id AS last_scan, after.create_time,
       after.update_time, after.version::text AS etag
  FROM before LEFT JOIN after ON true;
