-- RevokeApiKey: ends a key of at most the caller's role. One that is revoked already stays as it is.
-- unset: secret
WITH before AS (
  SELECT k AS api_key, CASE WHEN k.role > :caller_role THEN 'ROLE_ABOVE_CALLER'
                            WHEN :etag NOT IN ('', k.version::text) THEN 'ETAG_MISMATCH' END AS refusal
    FROM api_keys k
   WHERE k.organization_id = :organization_id AND k.api_key_id = :api_key_id FOR UPDATE
), revoked AS (
  UPDATE api_keys k SET revoke_time = now()
    FROM before
   WHERE k.organization_id = :organization_id AND k.api_key_id = :api_key_id AND k.revoke_time IS NULL
     AND before.refusal IS NULL
  RETURNING k AS api_key
), after AS (
  SELECT before.refusal, (coalesce(revoked.api_key, before.api_key)).* FROM before LEFT JOIN revoked ON true
)
SELECT after.refusal, 'organizations/' || :organization_slug || '/apiKeys/' || after.api_key_id AS name,
       after.api_key_id AS uid, after.display_name, after.role, after.key_prefix, after.expire_time, after.revoke_time,
       after.last_use_date::timestamp AT TIME ZONE 'UTC' AS last_use_time, after.creator, after.create_time,
       after.update_time, after.version::text AS etag
  FROM after;
