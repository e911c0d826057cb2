-- DeleteMember: ends a membership. The last owner cannot go (constraint last_owner).
WITH before AS (
  SELECT version::text AS etag FROM members
   WHERE organization_id = :organization_id AND member_id = :member_id FOR UPDATE
), deleted AS (
  DELETE FROM members m USING before
   WHERE m.organization_id = :organization_id AND m.member_id = :member_id AND :etag IN ('', before.etag)
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH' END AS refusal FROM before;
