-- CreateOrganization: a tenant of a new id, its slug, and an invitation for its first owner.
WITH earlier AS (
  SELECT * FROM find_created_organization(nullif(:request_id, '')::uuid)
), made AS (
  INSERT INTO organizations (organization_id, slug, display_name)
    SELECT :new_id, :organization_slug, :display_name WHERE NOT EXISTS (SELECT FROM earlier)
  RETURNING *
), named AS (
  INSERT INTO organization_slugs (slug, organization_id, request_id)
    SELECT slug, organization_id, nullif(:request_id, '')::uuid FROM made
), invited AS (
  INSERT INTO members (organization_id, member_id, email, role)
    SELECT organization_id, uuid_v7(), lower(:owner_email), 5 FROM made
)
SELECT 'organizations/' || slug AS name, organization_id AS uid, display_name,
       CASE WHEN delete_time IS NULL THEN 'ACTIVE' ELSE 'DELETED' END AS state, create_time, update_time, delete_time,
       purge_time, version::text AS etag
  FROM (SELECT * FROM earlier UNION ALL SELECT * FROM made) organization;
