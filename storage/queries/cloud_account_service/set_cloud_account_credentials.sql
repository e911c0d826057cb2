-- SetCloudAccountCredentials: a sealed record in place of the one before, with its data key.
WITH before AS (
  SELECT version::text AS etag, provider, account_uid FROM cloud_accounts
   WHERE organization_id = :organization_id AND cloud_account_id = :cloud_account_id FOR UPDATE
), after AS (
  UPDATE cloud_accounts a SET credentials_time = now()
    FROM before
   WHERE a.organization_id = :organization_id AND a.cloud_account_id = :cloud_account_id
     AND :etag IN ('', before.etag) AND before.provider = :provider::text
     AND :credentials_account::text IN ('', before.account_uid)  -- the one that the name of a role tells
  RETURNING a.*
), replaced AS (
  DELETE FROM credentials c USING after
   WHERE c.organization_id = :organization_id AND c.cloud_account_id = after.cloud_account_id
), sealed_key AS (
  INSERT INTO organization_keys (organization_id, data_key_id, kek_id, wrapped_data_key)
    SELECT organization_id, :data_key_id, :kek_id, :wrapped_data_key FROM after
  RETURNING organization_id, data_key_id
), sealed AS (
  INSERT INTO credentials (organization_id, credentials_id, cloud_account_id, data_key_id, ciphertext)
    SELECT k.organization_id, :credentials_id, after.cloud_account_id, k.data_key_id, :ciphertext
      FROM sealed_key k, after
)
SELECT CASE WHEN :etag NOT IN ('', before.etag)     THEN 'ETAG_MISMATCH'
            WHEN before.provider <> :provider::text THEN 'CREDENTIALS_PROVIDER_MISMATCH'
            WHEN :credentials_account::text NOT IN ('', before.account_uid) THEN 'CREDENTIALS_ACCOUNT_MISMATCH'
       END AS refusal,
       before.provider AS refusal_provider, :provider::text AS refusal_credentials_provider,
       'organizations/' || :organization_slug || '/cloudAccounts/' || after.cloud_account_id AS name,
       after.cloud_account_id AS uid, after.provider, after.account_uid, after.display_name, after.external_id,
       after.credentials_time,
       'organizations/' || :organization_slug || '/scans/' || after.last_scan_id AS last_scan, after.create_time,
       after.update_time, after.version::text AS etag
  FROM before LEFT JOIN after ON true;
