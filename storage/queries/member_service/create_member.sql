-- CreateMember: an invitation by e-mail address.
WITH earlier AS (
  SELECT * FROM members WHERE organization_id = :organization_id AND request_id = nullif(:request_id, '')::uuid
), made AS (
  INSERT INTO members (organization_id, member_id, email, role, request_id)
    SELECT :organization_id, :new_id, lower(:email), :role, nullif(:request_id, '')::uuid
     WHERE NOT EXISTS (SELECT FROM earlier)
  ON CONFLICT (organization_id, request_id) WHERE request_id IS NOT NULL DO NOTHING
  RETURNING *
)
SELECT 'organizations/' || :organization_slug || '/members/' || member_id AS name, member_id AS uid, email,
       role, subject, bind_time, create_time, update_time, version::text AS etag
  FROM (SELECT * FROM earlier UNION ALL SELECT * FROM made) member;
