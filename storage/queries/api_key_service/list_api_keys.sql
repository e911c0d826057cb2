-- ListApiKeys: newest first, revoked and expired ones included.
-- The bounds are CASE, not coalesce(): row-level security lets only what cannot leak into an index condition.
-- unset: secret
SELECT 'organizations/' || :organization_slug || '/apiKeys/' || api_key_id AS name, api_key_id AS uid,
       display_name, role, key_prefix, expire_time, revoke_time,
       last_use_date::timestamp AT TIME ZONE 'UTC' AS last_use_time, creator, create_time, update_time,
       version::text AS etag,
       api_key_id AS after_api_key_id
  FROM api_keys
 WHERE organization_id = :organization_id
   AND api_key_id < CASE WHEN :after_api_key_id::uuid IS NULL THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid
                         ELSE :after_api_key_id END
 ORDER BY api_key_id DESC
 LIMIT :page_limit;
