-- What reads are made of.

-- The ways to an organization that nearly every caller takes once a second. A security definer's SQL function is
-- planned at each call, which costs ten times what the look-up itself does; PL/pgSQL keeps its plans with the session.

CREATE OR REPLACE FUNCTION find_organization(slug text)
  RETURNS TABLE (organization_id uuid, organization_deleted boolean)
  LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT o.organization_id, o.delete_time IS NOT NULL
      FROM organization_slugs s JOIN organizations o USING (organization_id)
     WHERE s.slug = $1 AND (o.purge_time IS NULL OR o.purge_time > now());
END
$$;
CALL make_system_function('find_organization(text)');

CREATE OR REPLACE FUNCTION find_api_key(key_prefix text)
  RETURNS TABLE (organization_id uuid, organization_slug text, organization_deleted boolean, api_key_id uuid, role int,
                 secret_sha256 bytea, expire_time timestamptz, revoked boolean)
  LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT k.organization_id, o.slug, o.delete_time IS NOT NULL, k.api_key_id, k.role::int, k.secret_sha256,
           k.expire_time, k.revoke_time IS NOT NULL
      FROM api_key_prefixes p
      JOIN api_keys k USING (organization_id, api_key_id)
      JOIN organizations o USING (organization_id)
     WHERE p.key_prefix = $1 AND (o.purge_time IS NULL OR o.purge_time > now());
END
$$;
CALL make_system_function('find_api_key(text)');

-- A resource's findings that are open or acknowledged, by severity. The planner takes it apart.
CREATE FUNCTION active_findings(organization_id uuid, cloud_account_id uuid, resource_id uuid)
  RETURNS TABLE (critical int, high int, medium int, low int, other int)
  LANGUAGE sql STABLE
AS $$
  SELECT count(*) FILTER (WHERE f.severity >= 6)::int, count(*) FILTER (WHERE f.severity = 5)::int,
         count(*) FILTER (WHERE f.severity = 4)::int, count(*) FILTER (WHERE f.severity = 3)::int,
         count(*) FILTER (WHERE f.severity < 3)::int
    FROM findings f
   WHERE f.organization_id = $1 AND f.cloud_account_id = $2 AND f.resource_id = $3
     AND state_now(f) IN ('OPEN', 'ACKNOWLEDGED')
$$;
