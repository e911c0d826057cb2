-- CreateApiKey: a key of at most the caller's role; its secret is known here by its hash alone.
-- unset: secret
WITH earlier AS (
  SELECT * FROM api_keys WHERE organization_id = :organization_id AND request_id = nullif(:request_id, '')::uuid
), made AS (
  INSERT INTO api_keys (organization_id, api_key_id, key_prefix, secret_sha256, display_name, role, creator, request_id,
                        expire_time)
    SELECT :organization_id, :new_id, :key_prefix, :secret_sha256, :display_name, :role, :caller_id,
           nullif(:request_id, '')::uuid, :expire_time
     WHERE NOT EXISTS (SELECT FROM earlier) AND :role <= :caller_role::int2
  ON CONFLICT (organization_id, request_id) WHERE request_id IS NOT NULL DO NOTHING
  RETURNING *
), found AS (
  INSERT INTO api_key_prefixes (key_prefix, organization_id, api_key_id)
    SELECT key_prefix, organization_id, api_key_id FROM made
), above AS (
  SELECT 'ROLE_ABOVE_CALLER' AS refusal WHERE :role > :caller_role::int2
)
SELECT above.refusal, 'organizations/' || :organization_slug || '/apiKeys/' || api_key_id AS name, api_key_id AS uid,
       display_name, role, key_prefix, expire_time, revoke_time,
       last_use_date::timestamp AT TIME ZONE 'UTC' AS last_use_time, creator, create_time, update_time,
       version::text AS etag
  FROM (SELECT * FROM earlier UNION ALL SELECT * FROM made) api_key FULL JOIN above ON false;
