-- ListMembers: in the order of their invitations.
SELECT 'organizations/' || :organization_slug || '/members/' || member_id AS name, member_id AS uid, email,
       role, subject, bind_time, create_time, update_time, version::text AS etag,
       member_id AS after_member_id
  FROM members
 WHERE organization_id = :organization_id
   AND member_id > coalesce(:after_member_id::uuid, '00000000-0000-0000-0000-000000000000'::uuid)
 ORDER BY member_id
 LIMIT :page_limit;
