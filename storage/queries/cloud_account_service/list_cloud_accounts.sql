-- ListCloudAccounts: in the order in which they were made.
SELECT 'organizations/' || :organization_slug || '/cloudAccounts/' || cloud_account_id AS name,
       cloud_account_id AS uid, provider, account_uid, display_name, external_id, credentials_time,
       'organizations/' || :organization_slug || '/scans/' || last_scan_id AS last_scan, create_time,
       update_time, version::text AS etag,
       cloud_account_id AS after_cloud_account_id
  FROM cloud_accounts
 WHERE organization_id = :organization_id
   AND cloud_account_id > coalesce(:after_cloud_account_id::uuid, '00000000-0000-0000-0000-000000000000'::uuid)
 ORDER BY cloud_account_id
 LIMIT :page_limit;
