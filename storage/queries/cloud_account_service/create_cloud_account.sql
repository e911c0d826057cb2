-- CreateCloudAccount: an account whose account_uid has its provider's form; for AWS, with an external id of our own.
WITH earlier AS (
  SELECT * FROM cloud_accounts
   WHERE organization_id = :organization_id AND request_id = nullif(:request_id, '')::uuid
), malformed AS (
  SELECT 'ACCOUNT_UID_INVALID' AS refusal, :provider::text AS refusal_provider
   WHERE NOT account_uid_valid(:provider::text, :account_uid)
), made AS (
  INSERT INTO cloud_accounts (organization_id, cloud_account_id, provider, account_uid, display_name, external_id,
                              request_id)
    SELECT :organization_id, :new_id, :provider::text,
           CASE WHEN :provider::text = 'AZURE' THEN lower(:account_uid) ELSE :account_uid END, :display_name,
           CASE WHEN :provider::text = 'AWS' THEN gen_random_uuid()::text ELSE '' END, nullif(:request_id, '')::uuid
     WHERE NOT EXISTS (SELECT FROM earlier) AND NOT EXISTS (SELECT FROM malformed)
  ON CONFLICT (organization_id, request_id) WHERE request_id IS NOT NULL DO NOTHING
  RETURNING *
)
SELECT malformed.refusal, malformed.refusal_provider,
       'organizations/' || :organization_slug || '/cloudAccounts/' || cloud_account_id AS name,
       cloud_account_id AS uid, provider, account_uid, display_name, external_id, credentials_time,
       'organizations/' || :organization_slug || '/scans/' || last_scan_id AS last_scan, create_time,
       update_time, version::text AS etag
  FROM (SELECT * FROM earlier UNION ALL SELECT * FROM made) account FULL JOIN malformed ON false;
