-- GetMember: one member.
SELECT 'organizations/' || :organization_slug || '/members/' || member_id AS name, member_id AS uid, email,
       role, subject, bind_time, create_time, update_time, version::text AS etag
  FROM members
 WHERE organization_id = :organization_id AND member_id = :member_id;
