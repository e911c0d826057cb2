-- DeleteOrganization: out of use at once, gone for good after 30 days.
WITH before AS (
  SELECT version::text AS etag, delete_time FROM organizations
   WHERE organization_id = :organization_id AND (purge_time IS NULL OR purge_time > now()) FOR UPDATE
), after AS (
  UPDATE organizations o SET delete_time = now(), purge_time = now() + interval '30 days'
    FROM before
   WHERE o.organization_id = :organization_id AND :etag IN ('', before.etag) AND before.delete_time IS NULL
  RETURNING o.*
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH'
            WHEN before.delete_time IS NOT NULL THEN 'ORGANIZATION_DELETED' END AS refusal,
       'organizations/' || after.slug AS name, after.organization_id AS uid, after.display_name,
       CASE WHEN after.delete_time IS NULL THEN 'ACTIVE' ELSE 'DELETED' END AS state, after.create_time,
       after.update_time, after.delete_time, after.purge_time, after.version::text AS etag
  FROM before LEFT JOIN after ON true;
