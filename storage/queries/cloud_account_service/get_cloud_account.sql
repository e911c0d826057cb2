-- GetCloudAccount: one account.
SELECT 'organizations/' || :organization_slug || '/cloudAccounts/' || cloud_account_id AS name,
       cloud_account_id AS uid, provider, account_uid, display_name, external_id, credentials_time,
       'organizations/' || :organization_slug || '/scans/' || last_scan_id AS last_scan, create_time,
       update_time, version::text AS etag
  FROM cloud_accounts
 WHERE organization_id = :organization_id AND cloud_account_id = :cloud_account_id;
