-- Audit: who changed what, written by the database in the transaction that changes it.

-- Append-only: genie_app may read, the triggers below write.
CREATE TABLE audit_events (
  organization_id uuid NOT NULL,
  event_time timestamptz NOT NULL DEFAULT now(),
  audit_event_id uuid NOT NULL DEFAULT uuid_v7(),
  caller text NOT NULL,
  method text NOT NULL,
  request_id text NOT NULL,
  operation text NOT NULL,
  collection text NOT NULL,
  resource_uid text NOT NULL,  -- empty where one statement changed many rows
  row_count int NOT NULL,
  changes_json text NOT NULL,  -- empty where one statement changed many rows
  PRIMARY KEY (organization_id, event_time, audit_event_id)
) PARTITION BY RANGE (event_time);
CREATE TABLE audit_events_default PARTITION OF audit_events DEFAULT;
ALTER TABLE audit_events_default ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
GRANT SELECT ON audit_events TO genie_app;
CALL protect_tenant_table('audit_events');
CALL allow_system('audit_events', 'SELECT, INSERT, DELETE');

-- From a row before and after: the fields that differ, each as [before, after]; of a new or a deleted row, all.
CREATE FUNCTION changed_fields(before jsonb, after jsonb) RETURNS jsonb
  LANGUAGE sql IMMUTABLE
AS $$
  SELECT CASE
    WHEN before IS NULL THEN jsonb_strip_nulls(after)
    WHEN after IS NULL THEN jsonb_strip_nulls(before)
    ELSE (SELECT jsonb_object_agg(key, jsonb_build_array(before -> key, value))
            FROM jsonb_each(after) WHERE value IS DISTINCT FROM before -> key)
  END
$$;

-- One audit event for what one statement changed in an organization. The purge of an organization leaves none.
CREATE FUNCTION write_audit_event(organization_id uuid, operation text, collection text, row_count bigint,
                                  resource_uid text, changes jsonb) RETURNS void
  LANGUAGE sql
AS $$
  INSERT INTO audit_events (organization_id, caller, method, request_id, operation, collection, resource_uid,
                            row_count, changes_json)
    SELECT $1, call_setting('caller', 'system'), call_setting('method', ''), call_setting('request_id', ''), $2, $3,
           CASE WHEN $4 = 1 THEN $5 ELSE '' END, $4, CASE WHEN $4 = 1 THEN $6::text ELSE '' END
     WHERE EXISTS (SELECT FROM organizations o WHERE o.organization_id = $1)
$$;

-- Statement trigger: arguments are the collection, the column of the id, and the columns that are secret, or change
-- by themselves.
CREATE FUNCTION audit() RETURNS trigger
  LANGUAGE plpgsql SET enable_nestloop = off
AS $$
DECLARE
  hidden text[] := TG_ARGV[2]::text[] || '{organization_id,version,request_id,create_time,update_time}';
BEGIN
  IF TG_OP = 'INSERT' THEN
    PERFORM write_audit_event(organization_id, TG_OP, TG_ARGV[0], count(*), min(to_jsonb(a) ->> TG_ARGV[1]),
                              changed_fields(NULL, (array_agg(to_jsonb(a) - hidden))[1]))
       FROM after a GROUP BY organization_id;
  ELSIF TG_OP = 'DELETE' THEN
    PERFORM write_audit_event(organization_id, TG_OP, TG_ARGV[0], count(*), min(to_jsonb(b) ->> TG_ARGV[1]),
                              changed_fields((array_agg(to_jsonb(b) - hidden))[1], NULL))
       FROM before b GROUP BY organization_id;
  ELSE
    PERFORM write_audit_event(organization_id, TG_OP, TG_ARGV[0], count(*), min(id),
                              changed_fields((array_agg(before))[1], (array_agg(after))[1]))
       FROM (SELECT organization_id, to_jsonb(b) ->> TG_ARGV[1] AS id, to_jsonb(b) - hidden AS before FROM before b) b
       JOIN (SELECT organization_id, to_jsonb(a) ->> TG_ARGV[1] AS id, to_jsonb(a) - hidden AS after FROM after a) a
      USING (organization_id, id)
      WHERE before <> after
      GROUP BY organization_id;
  END IF;
  RETURN NULL;
END
$$;
CALL make_system_function('write_audit_event(uuid, text, text, bigint, text, jsonb)');
REVOKE ALL ON FUNCTION write_audit_event(uuid, text, text, bigint, text, jsonb) FROM genie_app;
CALL make_system_function('audit()');

-- Of a finding, what people and the clock decide. What a scan changes stands in finding_events, with the scan.
CREATE FUNCTION audit_findings() RETURNS trigger
  LANGUAGE plpgsql SET enable_nestloop = off
AS $$
BEGIN
  PERFORM write_audit_event(organization_id, TG_OP, 'findings', count(*), min(finding_id::text),
                            changed_fields((array_agg(before))[1], (array_agg(after))[1]))
     FROM (SELECT organization_id, finding_id, jsonb_build_object('state', state, 'note', state_reason,
                  'approver', approver, 'justification', justification, 'accept_time', accept_time,
                  'acceptance_expire_time', acceptance_expire_time) AS after
             FROM after WHERE state_scan_id IS NULL) a
     JOIN (SELECT organization_id, finding_id, jsonb_build_object('state', state, 'note', state_reason,
                  'approver', approver, 'justification', justification, 'accept_time', accept_time,
                  'acceptance_expire_time', acceptance_expire_time) AS before
             FROM before) b
    USING (organization_id, finding_id)
    WHERE before <> after
    GROUP BY organization_id;
  RETURN NULL;
END
$$;
CALL make_system_function('audit_findings()');

CREATE PROCEDURE audit_table(relation regclass, collection text, id_column text, hidden text[])
  LANGUAGE plpgsql
AS $$
DECLARE
  arguments text := format('(%L, %L, %L)', collection, id_column, hidden);
BEGIN
  EXECUTE format('CREATE TRIGGER audit_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS after
                  FOR EACH STATEMENT EXECUTE FUNCTION audit%s', relation, arguments);
  EXECUTE format('CREATE TRIGGER audit_update AFTER UPDATE ON %s REFERENCING OLD TABLE AS before NEW TABLE AS after
                  FOR EACH STATEMENT EXECUTE FUNCTION audit%s', relation, arguments);
  EXECUTE format('CREATE TRIGGER audit_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS before
                  FOR EACH STATEMENT EXECUTE FUNCTION audit%s', relation, arguments);
END
$$;
REVOKE ALL ON PROCEDURE audit_table(regclass, text, text, text[]) FROM PUBLIC;

CALL audit_table('organizations', 'organizations', 'organization_id', '{owner_count}');
CALL audit_table('members', 'members', 'member_id', '{}');
CALL audit_table('api_keys', 'apiKeys', 'api_key_id', '{secret_sha256,last_use_date}');
CALL audit_table('cloud_accounts', 'cloudAccounts', 'cloud_account_id', '{last_scan_id}');
CALL audit_table('credentials', 'credentials', 'credentials_id', '{ciphertext}');
-- Who started an import; what came of it stands in the scan.
CREATE TRIGGER audit_insert AFTER INSERT ON scans REFERENCING NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION audit('scans', 'scan_id', '{}');
CREATE TRIGGER audit_update AFTER UPDATE ON findings REFERENCING OLD TABLE AS before NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION audit_findings();
