-- Findings and the history of their states.

-- One failing check on one resource: one row, however many scans saw it. Its identity is (account, check, resource uid,
-- region, ordinal); resource_id and check_id stand for three of these, since `resources` and `checks` hold each once.
CREATE TABLE findings (
  organization_id uuid NOT NULL,
  finding_id uuid NOT NULL,
  cloud_account_id uuid NOT NULL,
  resource_id uuid NOT NULL,
  check_id uuid NOT NULL,
  state_scan_id uuid,  -- the scan that made the state; NULL: a person did
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  -- As far as the row knows. An active finding was seen by the scan in account_coverage too.
  seen_time timestamptz NOT NULL,
  resolve_time timestamptz,
  accept_time timestamptz,
  acceptance_expire_time timestamptz,
  version int NOT NULL DEFAULT 1,
  ordinal int NOT NULL DEFAULT 0,
  regression_count int NOT NULL DEFAULT 0,
  severity smallint NOT NULL,  -- Finding.Severity
  muted boolean NOT NULL,
  state text NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'ACKNOWLEDGED', 'ACCEPTED_RISK', 'RESOLVED')),
  state_reason text NOT NULL,  -- a person's note or justification, or what the scan saw
  status_detail text NOT NULL,
  approver text,
  justification text,
  PRIMARY KEY (organization_id, finding_id),
  CONSTRAINT findings_identity UNIQUE (organization_id, cloud_account_id, resource_id, check_id, ordinal),
  FOREIGN KEY (organization_id, cloud_account_id, resource_id)
    REFERENCES resources (organization_id, cloud_account_id, resource_id) ON DELETE CASCADE,
  FOREIGN KEY (organization_id, check_id) REFERENCES checks,
  CHECK ((state = 'RESOLVED') = (resolve_time IS NOT NULL)),
  CHECK ((accept_time IS NULL) = (approver IS NULL) AND (accept_time IS NULL) = (justification IS NULL)),
  CHECK (state <> 'ACCEPTED_RISK' OR accept_time IS NOT NULL)
);
CREATE INDEX findings_by_severity ON findings (organization_id, severity, finding_id);
CREATE INDEX findings_to_expire ON findings (organization_id, acceptance_expire_time)
  WHERE state = 'ACCEPTED_RISK' AND acceptance_expire_time IS NOT NULL;
GRANT SELECT, INSERT, UPDATE ON findings TO genie_app;
CALL protect_tenant_table('findings');
CALL allow_system('findings', 'SELECT, UPDATE, DELETE');

-- Whether an acceptance holds no more.
CREATE FUNCTION acceptance_expired(f findings) RETURNS boolean
  LANGUAGE sql STABLE
AS $$ SELECT coalesce((f).acceptance_expire_time <= now(), false) $$;

-- The state at this moment: an acceptance that has expired is OPEN, whether or not the sweep has written it down.
CREATE FUNCTION state_now(f findings) RETURNS text
  LANGUAGE sql STABLE
AS $$
  SELECT CASE WHEN (f).state = 'ACCEPTED_RISK' AND (f).acceptance_expire_time <= now() THEN 'OPEN' ELSE (f).state END
$$;

-- The columns of message Finding. Statements of an older release select from it: columns come and go under a new
-- function name only. The planner takes it apart into three index look-ups, as long as f stays out of outer joins.
CREATE FUNCTION finding_message(f findings, organization_slug text) RETURNS TABLE (
    name text, uid uuid, cloud_account text, resource text, resource_uid text, resource_display_name text,
    region text, "check" text, service text, title text, description text, risk text, remediation text,
    reference_urls text[], status_detail text, severity smallint, state text, muted boolean, ordinal int, note text,
    "acceptance.approver" text, "acceptance.justification" text, "acceptance.accept_time" timestamptz,
    "acceptance.expire_time" timestamptz, regression_count int, create_time timestamptz, update_time timestamptz,
    last_seen_time timestamptz, resolve_time timestamptz, etag text)
  LANGUAGE sql STABLE
AS $$
  SELECT 'organizations/' || organization_slug || '/findings/' || (f).finding_id,
         (f).finding_id,
         'organizations/' || organization_slug || '/cloudAccounts/' || (f).cloud_account_id,
         'organizations/' || organization_slug || '/resources/' || (f).resource_id,
         r.resource_uid, r.display_name, r.region, c.check_key, c.service, c.title, c.description, c.risk,
         c.remediation, c.reference_urls, (f).status_detail, (f).severity, state_now(f), (f).muted, (f).ordinal,
         CASE WHEN (f).state_scan_id IS NULL AND state_now(f) = (f).state THEN (f).state_reason END,
         CASE WHEN NOT acceptance_expired(f) THEN (f).approver END,
         CASE WHEN NOT acceptance_expired(f) THEN (f).justification END,
         CASE WHEN NOT acceptance_expired(f) THEN (f).accept_time END,
         CASE WHEN NOT acceptance_expired(f) THEN (f).acceptance_expire_time END,
         (f).regression_count, (f).create_time, (f).update_time,
         CASE WHEN (f).state = 'RESOLVED' THEN (f).seen_time
              ELSE greatest((f).seen_time, (SELECT v.scan_time FROM account_coverage v
                                             WHERE v.organization_id = r.organization_id
                                               AND v.cloud_account_id = r.cloud_account_id
                                               AND v.check_id = c.check_id AND v.scope_region = r.scope_region)) END,
         (f).resolve_time,
         (f).version::text
    FROM resources r, checks c
   WHERE r.organization_id = (f).organization_id AND r.resource_id = (f).resource_id
     AND c.organization_id = (f).organization_id AND c.check_id = (f).check_id
$$;

-- Row trigger: the next version; and no row is written with an acceptance that has expired.
CREATE FUNCTION settle_finding() RETURNS trigger
  LANGUAGE plpgsql
AS $$
BEGIN
  IF NEW.acceptance_expire_time <= now() THEN
    IF NEW.state = 'ACCEPTED_RISK' THEN
      NEW.state := 'OPEN';
      NEW.state_reason := '';
      NEW.state_scan_id := NULL;
    END IF;
    NEW.approver := NULL;
    NEW.justification := NULL;
    NEW.accept_time := NULL;
    NEW.acceptance_expire_time := NULL;
  END IF;
  NEW.version := OLD.version + 1;
  NEW.update_time := now();
  RETURN NEW;
END
$$;
CREATE TRIGGER version BEFORE UPDATE ON findings FOR EACH ROW EXECUTE FUNCTION settle_finding();

-- Every change of a finding's state. Append-only: genie_app may read, the trigger below writes.
CREATE TABLE finding_events (
  organization_id uuid NOT NULL,
  finding_id uuid NOT NULL,
  event_time timestamptz NOT NULL,
  version int NOT NULL,  -- the finding's, after the change
  scan_id uuid,
  from_state text,       -- NULL: the finding is new
  to_state text NOT NULL,
  actor text NOT NULL,
  reason text NOT NULL,
  expire_time timestamptz,
  PRIMARY KEY (organization_id, finding_id, event_time, version)
) PARTITION BY RANGE (event_time);
CREATE TABLE finding_events_default PARTITION OF finding_events DEFAULT;
ALTER TABLE finding_events_default ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
GRANT SELECT ON finding_events TO genie_app;
CALL protect_tenant_table('finding_events');
CALL allow_system('finding_events', 'SELECT, INSERT, DELETE');

CREATE FUNCTION write_finding_events_of_new() RETURNS trigger
  LANGUAGE plpgsql
AS $$
BEGIN
  INSERT INTO finding_events
    SELECT organization_id, finding_id, now(), version, state_scan_id, NULL, state, call_setting('caller', 'system'),
           state_reason, acceptance_expire_time
      FROM after;
  RETURN NULL;
END
$$;
CALL make_system_function('write_finding_events_of_new()');
CREATE TRIGGER events_of_new AFTER INSERT ON findings REFERENCING NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION write_finding_events_of_new();

-- An acceptance that had expired unnoticed gets its event first, at the time of its expiry; it has the version that
-- expired, so that it stands before the change that found it so.
CREATE FUNCTION write_finding_events() RETURNS trigger
  LANGUAGE plpgsql SET enable_nestloop = off  -- the plan is kept, for one row and for a hundred thousand
AS $$
BEGIN
  WITH change AS (
    SELECT a.*, b.version AS version_before, b.acceptance_expire_time AS expired_at, b.expired,
           CASE WHEN b.expired THEN 'OPEN' ELSE b.state END AS state_before
      FROM (SELECT *, state = 'ACCEPTED_RISK' AND coalesce(acceptance_expire_time <= now(), false) AS expired
              FROM before) b
      JOIN after a USING (organization_id, finding_id)
     WHERE a.state <> b.state OR b.expired
  )
  INSERT INTO finding_events
    SELECT organization_id, finding_id, expired_at, version_before, NULL, 'ACCEPTED_RISK', 'OPEN', 'system',
           'expired', NULL
      FROM change WHERE expired
    UNION ALL
    SELECT organization_id, finding_id, now(), version, state_scan_id, state_before, state,
           call_setting('caller', 'system'), state_reason,
           CASE WHEN state = 'ACCEPTED_RISK' THEN acceptance_expire_time END
      FROM change WHERE state <> state_before;
  RETURN NULL;
END
$$;
CALL make_system_function('write_finding_events()');
CREATE TRIGGER events AFTER UPDATE ON findings REFERENCING OLD TABLE AS before NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION write_finding_events();

-- The history of a finding goes with it.
CREATE FUNCTION drop_finding_events() RETURNS trigger
  LANGUAGE plpgsql SET enable_hashjoin = off SET enable_mergejoin = off  -- never a scan over all history
AS $$
BEGIN
  DELETE FROM finding_events e USING before b
   WHERE e.organization_id = b.organization_id AND e.finding_id = b.finding_id;
  RETURN NULL;
END
$$;
CALL make_system_function('drop_finding_events()');
CREATE TRIGGER events_of_deleted AFTER DELETE ON findings REFERENCING OLD TABLE AS before
  FOR EACH STATEMENT EXECUTE FUNCTION drop_finding_events();
