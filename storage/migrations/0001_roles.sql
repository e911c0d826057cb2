-- Roles, and what the tables of the other migrations share.
--
-- genie_app     what requests run as (SET ROLE). It owns nothing and passes no policy but its tenant's.
-- genie_system  owns the few functions that look across organizations: key look-up, sweeps, the writing of events and
--               audit. Nobody logs in as it or becomes it; what it may do stands in the policies named `system`.
-- The role that migrates owns the database and the tables. It needs CREATEROLE, or to be a superuser.
--
-- Text that is compared, sorted or indexed has COLLATE "C": by its bytes, whatever the database's locale, so that an
-- index outlives a change of the system's library, and two servers agree on an order.

DO $$
DECLARE
  role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['genie_app', 'genie_system'] LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOBYPASSRLS', role);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;  -- roles belong to the cluster: another database of it has made them
    END;
    IF NOT pg_has_role(current_user, role, 'MEMBER') THEN
      EXECUTE format('GRANT %I TO CURRENT_USER', role);
    END IF;
  END LOOP;
END
$$;

GRANT USAGE ON SCHEMA public TO genie_app;
GRANT USAGE, CREATE ON SCHEMA public TO genie_system;  -- it makes the monthly partitions

-- A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random bits.
CREATE FUNCTION uuid_v7() RETURNS uuid
  LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$
  SELECT encode(set_bit(set_bit(overlay(
           uuid_send(gen_random_uuid())
           PLACING substring(int8send(floor(date_part('epoch', clock_timestamp()) * 1000)::int8) FROM 3) FROM 1 FOR 6),
         52, 1), 53, 1), 'hex')::uuid
$$;

-- Shuts a tenant table off: row-level security on and forced, and one policy for genie_app. The setting is read
-- once a statement, as an InitPlan; an empty one gives no rows.
CREATE PROCEDURE protect_tenant_table(relation regclass)
  LANGUAGE plpgsql
AS $$
BEGIN
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', relation);
  EXECUTE format($policy$
    CREATE POLICY tenant ON %s TO genie_app
      USING (organization_id = (SELECT nullif(current_setting('genie.organization_id', true), '')::uuid))
  $policy$, relation);
END
$$;

-- Lets the system functions at a table, with these privileges and no others.
CREATE PROCEDURE allow_system(relation regclass, privileges text)
  LANGUAGE plpgsql
AS $$
BEGIN
  EXECUTE format('GRANT %s ON %s TO genie_system', privileges, relation);
  EXECUTE format('CREATE POLICY system ON %s TO genie_system USING (true)', relation);
END
$$;

-- Makes a function one of the system's: it runs as genie_system and only genie_app may call it.
CREATE PROCEDURE make_system_function(function regprocedure)
  LANGUAGE plpgsql
AS $$
BEGIN
  EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = public, pg_temp', function);
  EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', function);
  EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO genie_app', function);
  EXECUTE format('ALTER FUNCTION %s OWNER TO genie_system', function);
END
$$;

-- None of the three is for requests.
REVOKE ALL ON PROCEDURE protect_tenant_table(regclass), allow_system(regclass, text), make_system_function(regprocedure)
  FROM PUBLIC;

-- Row trigger: the next version (which the etag shows) and the time of the change.
CREATE FUNCTION next_version() RETURNS trigger
  LANGUAGE plpgsql
AS $$
BEGIN
  NEW.version := OLD.version + 1;
  NEW.update_time := now();
  RETURN NEW;
END
$$;

-- A setting of the call that runs; the fallback where there is none.
CREATE FUNCTION call_setting(setting text, fallback text) RETURNS text
  LANGUAGE sql STABLE
AS $$ SELECT coalesce(nullif(current_setting('genie.' || setting, true), ''), fallback) $$;
