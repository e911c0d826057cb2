-- Finds the API key of a prefix, with its organization.
SELECT organization_id, organization_slug, organization_deleted, api_key_id, role, secret_sha256, expire_time, revoked
  FROM find_api_key(:key_prefix);
