-- UpdateMember: the role. The last owner stays one (constraint last_owner).
WITH before AS (
  SELECT version::text AS etag FROM members
   WHERE organization_id = :organization_id AND member_id = :member_id FOR UPDATE
), after AS (
  UPDATE members m SET role = CASE WHEN 'role' = ANY (:update_mask) THEN :role ELSE m.role END
    FROM before
   WHERE m.organization_id = :organization_id AND m.member_id = :member_id AND :etag IN ('', before.etag)
  RETURNING m.*
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH' END AS refusal,
       'organizations/' || :organization_slug || '/members/' || after.member_id AS name, after.member_id AS uid,
       after.email,
       after.role, after.subject, after.bind_time, after.create_time, after.update_time, after.version::text AS etag
  FROM before LEFT JOIN after ON true;
