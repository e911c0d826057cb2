-- What looks across organizations: the ways to an organization before a tenant is known, and the sweep.

CREATE FUNCTION find_organization(slug text)
  RETURNS TABLE (organization_id uuid, organization_deleted boolean)
  LANGUAGE sql STABLE
AS $$
  SELECT o.organization_id, o.delete_time IS NOT NULL
    FROM organization_slugs s JOIN organizations o USING (organization_id)
   WHERE s.slug = $1 AND (o.purge_time IS NULL OR o.purge_time > now())
$$;
CALL make_system_function('find_organization(text)');

CREATE FUNCTION find_api_key(key_prefix text)
  RETURNS TABLE (organization_id uuid, organization_slug text, organization_deleted boolean, api_key_id uuid, role int,
                 secret_sha256 bytea, expire_time timestamptz, revoked boolean)
  LANGUAGE sql STABLE
AS $$
  SELECT k.organization_id, o.slug, o.delete_time IS NOT NULL, k.api_key_id, k.role::int, k.secret_sha256,
         k.expire_time, k.revoke_time IS NOT NULL
    FROM api_key_prefixes p
    JOIN api_keys k USING (organization_id, api_key_id)
    JOIN organizations o USING (organization_id)
   WHERE p.key_prefix = $1 AND (o.purge_time IS NULL OR o.purge_time > now())
$$;
CALL make_system_function('find_api_key(text)');

-- A person's membership of an organization. The subject that is bound counts; failing that, an invitation of the
-- verified address (`email`, in lower case; empty: none) is bound to the subject, now and for good.
CREATE FUNCTION find_member(organization_slug text, subject text, email text)
  RETURNS TABLE (organization_id uuid, organization_deleted boolean, role int)
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  found_role int;
BEGIN
  SELECT o.organization_id, o.organization_deleted INTO organization_id, organization_deleted
    FROM find_organization($1) o;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT m.role INTO found_role
    FROM members m WHERE m.organization_id = find_member.organization_id AND m.subject = $2;
  IF NOT FOUND AND $3 <> '' THEN
    PERFORM set_config('genie.caller', 'user:' || $2, true);
    UPDATE members m SET subject = $2, bind_time = now()
     WHERE m.organization_id = find_member.organization_id AND m.email = $3 AND m.subject IS NULL
    RETURNING m.role INTO found_role;
    IF NOT FOUND THEN  -- of a person's first calls at once, one binds; the others have waited for it
      SELECT m.role INTO found_role
        FROM members m WHERE m.organization_id = find_member.organization_id AND m.subject = $2;
    END IF;
  END IF;
  role := found_role;
  IF role IS NOT NULL THEN
    RETURN NEXT;
  END IF;
END
$$;
CALL make_system_function('find_member(text, text, text)');

-- The organizations that a caller may list, by slug: a platform-admin's all, a person's own, an API key's one.
CREATE FUNCTION list_organizations(caller_kind text, subject text, email text, key_organization_id uuid,
                                   show_deleted boolean, after_slug text, page_limit bigint)
  RETURNS SETOF organizations
  LANGUAGE plpgsql STABLE
AS $$
BEGIN
  IF caller_kind = 'platform-admin' THEN
    RETURN QUERY
      SELECT o.* FROM organization_slugs s JOIN organizations o USING (organization_id)
       WHERE s.slug > after_slug AND (o.delete_time IS NULL OR show_deleted AND o.purge_time > now())
       ORDER BY s.slug LIMIT page_limit;
  ELSE
    RETURN QUERY
      WITH own AS (
        SELECT m.organization_id FROM memberships m
         WHERE caller_kind = 'user' AND m.person IN ('subject:' || $2, 'email:' || nullif($3, ''))
        UNION
        SELECT key_organization_id WHERE caller_kind = 'api_key'
      )
      SELECT o.* FROM own JOIN organizations o USING (organization_id)
       WHERE o.slug > after_slug AND (o.delete_time IS NULL OR show_deleted AND o.purge_time > now())
       ORDER BY o.slug LIMIT page_limit;
  END IF;
END
$$;
CALL make_system_function('list_organizations(text, text, text, uuid, boolean, text, bigint)');

-- What an earlier CreateOrganization of the same request id made.
CREATE FUNCTION find_created_organization(request_id uuid) RETURNS SETOF organizations
  LANGUAGE sql STABLE
AS $$
  SELECT o.* FROM organization_slugs s JOIN organizations o USING (organization_id) WHERE s.request_id = $1
$$;
CALL make_system_function('find_created_organization(uuid)');

-- Writes down that keys were used today (UTC); keys that have it already are left alone. How many were written.
CREATE FUNCTION touch_api_keys(organization_ids uuid[], api_key_ids uuid[]) RETURNS bigint
  LANGUAGE sql
AS $$
  WITH touched AS (
    UPDATE api_keys k SET last_use_date = (now() AT TIME ZONE 'UTC')::date
      FROM unnest(organization_ids, api_key_ids) used (organization_id, api_key_id)
     WHERE k.organization_id = used.organization_id AND k.api_key_id = used.api_key_id
       AND k.last_use_date IS DISTINCT FROM (now() AT TIME ZONE 'UTC')::date
    RETURNING 1
  )
  SELECT count(*) FROM touched
$$;
CALL make_system_function('touch_api_keys(uuid[], uuid[])');

-- Makes the monthly partitions of a table from this month on, `ahead` months more, that it does not have. Rows that
-- the default partition holds of such a month move into it. How many it made.
CREATE FUNCTION make_partitions(parent regclass, ahead int) RETURNS int
  LANGUAGE plpgsql SET timezone = 'UTC'
AS $$
DECLARE
  month timestamptz;
  name text;
  made int := 0;
BEGIN
  FOR month IN
      SELECT generate_series(date_trunc('month', now()), now() + make_interval(months => ahead), '1 month') LOOP
    name := format('%s_%s', parent, to_char(month, 'YYYY_MM'));
    CONTINUE WHEN to_regclass(name) IS NOT NULL;
    EXECUTE format('CREATE TABLE %I (LIKE %s INCLUDING DEFAULTS)', name, parent);
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('WITH moved AS (DELETE FROM %s_default WHERE event_time >= %L AND event_time < %L RETURNING *)
                    INSERT INTO %I SELECT * FROM moved', parent, month, month + interval '1 month', name);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, month,
                   month + interval '1 month');
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    made := made + 1;
  END LOOP;
  RETURN made;
END
$$;
-- Partitions belong to the owner of their parent.
ALTER TABLE finding_events OWNER TO genie_system;
ALTER TABLE finding_events_default OWNER TO genie_system;
ALTER TABLE audit_events OWNER TO genie_system;
ALTER TABLE audit_events_default OWNER TO genie_system;
CALL allow_system('finding_events_default', 'SELECT, INSERT, DELETE');
CALL allow_system('audit_events_default', 'SELECT, INSERT, DELETE');
CALL make_system_function('make_partitions(regclass, int)');
REVOKE ALL ON FUNCTION make_partitions(regclass, int) FROM genie_app;

-- What time does by itself, in bounded portions: acceptances expire, abandoned imports fail, deleted organizations go
-- at their purge time, next months' partitions are made. Every replica may call it, as often as it likes.
CREATE FUNCTION sweep(row_limit int, OUT expired int, OUT abandoned int, OUT purged_rows bigint, OUT purged int,
                      OUT partitions int)
  LANGUAGE plpgsql
AS $$
DECLARE
  collection text[];  -- a table and its id
  doomed uuid;
  removed bigint;
BEGIN
  PERFORM set_config('genie.caller', 'system', true), set_config('genie.method', '', true);
  expired := 0;
  abandoned := 0;
  purged_rows := 0;
  purged := 0;
  partitions := 0;
  -- One replica at a time; another one sweeps for us now.
  IF NOT pg_try_advisory_xact_lock(hashtext('genie.sweep')) THEN
    RETURN;
  END IF;

  WITH due AS (
    SELECT f.organization_id, f.finding_id FROM findings f
     WHERE f.state = 'ACCEPTED_RISK' AND f.acceptance_expire_time <= now()
     LIMIT row_limit FOR UPDATE SKIP LOCKED
  )
  UPDATE findings f SET state = 'OPEN' FROM due
   WHERE f.organization_id = due.organization_id AND f.finding_id = due.finding_id;
  GET DIAGNOSTICS expired = ROW_COUNT;

  WITH due AS MATERIALIZED (
    SELECT s.organization_id, s.scan_id FROM scans s LEFT JOIN import_runs r USING (organization_id, scan_id)
     WHERE s.state = 'RUNNING' AND coalesce(r.lease_time, s.create_time) < now() - interval '10 minutes'
     LIMIT row_limit FOR UPDATE OF s SKIP LOCKED
  )
  SELECT count(*) INTO abandoned
    FROM (SELECT fail_scan(organization_id, scan_id, 'abandoned') FROM due OFFSET 0) failed;

  -- The data keys first, all of them, so that no credential can be opened from this moment on; then table by table.
  DELETE FROM organization_keys k USING organizations o
   WHERE o.delete_time IS NOT NULL AND o.purge_time <= now() AND k.organization_id = o.organization_id;
  SELECT o.organization_id INTO doomed
    FROM organizations o WHERE o.delete_time IS NOT NULL AND o.purge_time <= now() LIMIT 1;
  IF FOUND THEN
    FOREACH collection SLICE 1 IN ARRAY ARRAY[['findings', 'finding_id'], ['resources', 'resource_id'],
        ['scans', 'scan_id'], ['checks', 'check_id'], ['audit_events', 'audit_event_id']] LOOP
      EXECUTE format('DELETE FROM %1$I WHERE organization_id = $1 AND %2$I IN
                        (SELECT %2$I FROM %1$I WHERE organization_id = $1 LIMIT $2)', collection[1], collection[2])
        USING doomed, row_limit - purged_rows;
      GET DIAGNOSTICS removed = ROW_COUNT;
      purged_rows := purged_rows + removed;
    END LOOP;
    IF purged_rows < row_limit THEN
      DELETE FROM organizations o WHERE o.organization_id = doomed;  -- what is left goes with it
      purged := 1;
    END IF;
  END IF;

  partitions := make_partitions('finding_events', 2) + make_partitions('audit_events', 2);
END
$$;
CALL make_system_function('sweep(int)');

SELECT make_partitions('finding_events', 2), make_partitions('audit_events', 2);
