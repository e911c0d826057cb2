-- GetOrganization: one organization, until it is purged.
SELECT 'organizations/' || slug AS name, organization_id AS uid, display_name,
       CASE WHEN delete_time IS NULL THEN 'ACTIVE' ELSE 'DELETED' END AS state, create_time, update_time, delete_time,
       purge_time, version::text AS etag
  FROM organizations
 WHERE organization_id = :organization_id AND (purge_time IS NULL OR purge_time > now());
