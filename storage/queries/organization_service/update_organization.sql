-- UpdateOrganization: the display name.
WITH before AS (
  SELECT version::text AS etag FROM organizations WHERE organization_id = :organization_id FOR UPDATE
), after AS (
  UPDATE organizations o
     SET display_name = CASE WHEN 'display_name' = ANY (:update_mask) THEN :display_name ELSE o.display_name END
    FROM before
   WHERE o.organization_id = :organization_id AND :etag IN ('', before.etag)
  RETURNING o.*
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH' END AS refusal,
       'organizations/' || after.slug AS name, after.organization_id AS uid, after.display_name,
       CASE WHEN after.delete_time IS NULL THEN 'ACTIVE' ELSE 'DELETED' END AS state, after.create_time,
       after.update_time, after.delete_time, after.purge_time, after.version::text AS etag
  FROM before LEFT JOIN after ON true;
