-- ListMembers: in the order of their invitations.
-- The bounds are CASE, not coalesce(): row-level security lets only what cannot leak into an index condition.
SELECT 'organizations/' || :organization_slug || '/members/' || member_id AS name, member_id AS uid, email,
       role, subject, bind_time, create_time, update_time, version::text AS etag,
       member_id AS after_member_id
  FROM members
 WHERE organization_id = :organization_id
   AND member_id > CASE WHEN :after_member_id::uuid IS NULL THEN '00000000-0000-0000-0000-000000000000'::uuid
                        ELSE :after_member_id END
 ORDER BY member_id
 LIMIT :page_limit;
