-- ListCloudAccounts: in the order in which they were made.
-- The bounds are CASE, not coalesce(): row-level security lets only what cannot leak into an index condition.
SELECT 'organizations/' || :organization_slug || '/cloudAccounts/' || cloud_account_id AS name,
       cloud_account_id AS uid, provider, account_uid, display_name, external_id, credentials_time,
       'organizations/' || :organization_slug || '/scans/' || last_scan_id AS last_scan, create_time,
       update_time, version::text AS etag,
       cloud_account_id AS after_cloud_account_id
  FROM cloud_accounts
 WHERE organization_id = :organization_id
   AND cloud_account_id
     > CASE WHEN :after_cloud_account_id::uuid IS NULL THEN '00000000-0000-0000-0000-000000000000'::uuid
                               ELSE :after_cloud_account_id END
 ORDER BY cloud_account_id
 LIMIT :page_limit;
