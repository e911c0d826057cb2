-- CreateOrganization: a tenant of a new id, its slug, and an invitation for its first owner.
-- Of several at once one wins; the others give no row, are run again, and find what it made.
WITH earlier AS (
  SELECT * FROM find_created_organization(nullif(:request_id, '')::uuid)
), named AS (
  INSERT INTO organization_slugs (slug, organization_id, request_id)
    SELECT :organization_slug, :new_id, nullif(:request_id, '')::uuid WHERE NOT EXISTS (SELECT FROM earlier)
  ON CONFLICT DO NOTHING
  RETURNING *
), made AS (
  INSERT INTO organizations (organization_id, slug, display_name)
    SELECT organization_id, slug, :display_name FROM named
  RETURNING *
), invited AS (
  INSERT INTO members (organization_id, member_id, email, role)
    SELECT organization_id, uuid_v7(), lower(:owner_email), 5 FROM made
), taken AS (
  SELECT 'ORGANIZATION_EXISTS' AS refusal
    FROM find_organization(:organization_slug) WHERE NOT EXISTS (SELECT FROM earlier)
)
SELECT taken.refusal, 'organizations/' || slug AS name, organization_id AS uid, display_name,
       CASE WHEN delete_time IS NULL THEN 'ACTIVE' ELSE 'DELETED' END AS state, create_time, update_time, delete_time,
       purge_time, version::text AS etag
  FROM (SELECT * FROM earlier UNION ALL SELECT * FROM made) organization FULL JOIN taken ON false;
