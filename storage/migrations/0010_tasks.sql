-- Tasks: what agents are asked to do, and what came of it.

-- A task waits and runs in tasks_live, a small table; some time after its end the sweep files it under its month.
CREATE TABLE tasks (
  organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  task_id uuid NOT NULL,
  filed_time timestamptz NOT NULL DEFAULT 'infinity',  -- the end_time, once it is filed
  kind smallint NOT NULL,                              -- TaskKind
  payload bytea NOT NULL,                              -- message TaskPayload
  labels jsonb NOT NULL,
  target_agent_id uuid,
  priority smallint NOT NULL,
  time_to_live interval NOT NULL,
  max_attempts smallint NOT NULL,
  idempotency_key text COLLATE "C" NOT NULL,
  creator text NOT NULL,
  state text NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'OFFERED', 'RUNNING', 'CANCELLING', 'SUCCEEDED',
                                                         'FAILED', 'CANCELLED', 'CANCEL_UNCONFIRMED', 'DEAD')),
  state_reason text NOT NULL DEFAULT '',  -- of the last change of state: for its event
  state_actor text NOT NULL,
  event_position xid8 NOT NULL DEFAULT pg_current_xact_id(),  -- of the last change of state
  attempt int NOT NULL DEFAULT 0,
  fence bigint NOT NULL DEFAULT 0,
  start_count smallint NOT NULL DEFAULT 0,
  agent_id uuid,
  failure_reason text NOT NULL DEFAULT '',
  failure_message text NOT NULL DEFAULT '',
  failure_permanent boolean NOT NULL DEFAULT false,
  outputs jsonb NOT NULL DEFAULT '{}',
  cancel_mode smallint,                   -- TaskCancellation.Mode; NULL: nobody has asked for it
  cancel_grace interval,
  cancel_reason text NOT NULL DEFAULT '',
  cancel_caller text NOT NULL DEFAULT '',
  cancel_time timestamptz,
  cancel_answer smallint NOT NULL DEFAULT 0,
  version int NOT NULL DEFAULT 1,
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  next_attempt_time timestamptz NOT NULL DEFAULT now(),
  expire_time timestamptz NOT NULL,
  start_time timestamptz,
  end_time timestamptz,
  PRIMARY KEY (organization_id, task_id, filed_time)
) PARTITION BY RANGE (filed_time);
-- The queue is an index whose entries are nearly all dead: it is read past those until they are vacuumed, however many
-- ended tasks the table holds beside.
CREATE TABLE tasks_live PARTITION OF tasks FOR VALUES FROM ('infinity') TO (MAXVALUE)
  WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE TABLE tasks_default PARTITION OF tasks DEFAULT;
ALTER TABLE tasks_live ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE tasks_default ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
-- The queue, in the order in which it is served.
CREATE INDEX tasks_pending ON tasks (organization_id, priority DESC, task_id) WHERE state = 'PENDING';
GRANT SELECT, INSERT, UPDATE ON tasks TO genie_app;
CALL protect_tenant_table('tasks');
CALL allow_system('tasks', 'SELECT, INSERT, UPDATE, DELETE');

-- Row trigger of tasks: the state moves along these ways and no others, whatever statement moves it; and the next
-- version. Filing a task is no change of it. ARCHITECTURE.md draws the table.
CREATE FUNCTION next_task_version() RETURNS trigger
  LANGUAGE plpgsql
AS $$
DECLARE
  ways CONSTANT text[] := ARRAY[
    'PENDING OFFERED', 'PENDING CANCELLED', 'PENDING DEAD',
    'OFFERED RUNNING', 'OFFERED PENDING', 'OFFERED FAILED', 'OFFERED CANCELLED',
    'RUNNING SUCCEEDED', 'RUNNING FAILED', 'RUNNING PENDING', 'RUNNING DEAD', 'RUNNING CANCELLING',
    'CANCELLING CANCELLED', 'CANCELLING SUCCEEDED', 'CANCELLING FAILED', 'CANCELLING CANCEL_UNCONFIRMED',
    'FAILED PENDING', 'DEAD PENDING', 'CANCELLED PENDING', 'CANCEL_UNCONFIRMED PENDING'];
BEGIN
  IF NEW.state <> OLD.state AND OLD.state || ' ' || NEW.state <> ALL (ways) THEN
    RAISE EXCEPTION 'a task does not go from % to %', OLD.state, NEW.state;
  END IF;
  IF NEW.state <> OLD.state THEN
    NEW.event_position := greatest(OLD.event_position, pg_current_xact_id());
  END IF;
  IF NEW.filed_time = OLD.filed_time THEN
    NEW.version := OLD.version + 1;
    NEW.update_time := now();
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER version BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION next_task_version();

-- What makes tasks the same, over all partitions.
CREATE TABLE task_keys (
  organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  idempotency_key text COLLATE "C" NOT NULL,
  task_id uuid NOT NULL,
  request_id uuid,
  CONSTRAINT task_exists PRIMARY KEY (organization_id, idempotency_key)
);
CREATE UNIQUE INDEX task_keys_request_id ON task_keys (organization_id, request_id) WHERE request_id IS NOT NULL;
GRANT SELECT, INSERT ON task_keys TO genie_app;
CALL protect_tenant_table('task_keys');
CALL allow_system('task_keys', 'SELECT, DELETE');

-- Attempts that were started, and how far their logs are.
CREATE TABLE task_attempts (
  organization_id uuid NOT NULL,
  task_id uuid NOT NULL,
  attempt int NOT NULL,
  fence bigint NOT NULL,
  agent_id uuid NOT NULL,
  stdout_offset bigint NOT NULL DEFAULT 0,
  stderr_offset bigint NOT NULL DEFAULT 0,
  stdout_end bigint,  -- where the log ends; NULL: more may come
  stderr_end bigint,
  start_time timestamptz NOT NULL DEFAULT now(),
  end_time timestamptz,
  outcome text NOT NULL DEFAULT '',  -- SUCCEEDED, FAILED, CANCELLED: its result; LEASE_LOST; empty: it runs
  result_id uuid,
  PRIMARY KEY (organization_id, task_id, attempt)
) WITH (fillfactor = 70);
GRANT SELECT ON task_attempts TO genie_app;
CALL protect_tenant_table('task_attempts');
CALL allow_system('task_attempts', 'SELECT, INSERT, UPDATE, DELETE');

-- Who has a task now, and until when: of offers, and of attempts that run. No column that changes is indexed.
CREATE TABLE task_leases (
  organization_id uuid NOT NULL,
  task_id uuid NOT NULL,
  attempt int NOT NULL,
  fence bigint NOT NULL,
  agent_id uuid NOT NULL,
  replica_id uuid NOT NULL,
  started boolean NOT NULL DEFAULT false,
  cancelling boolean NOT NULL DEFAULT false,
  lease_time timestamptz NOT NULL,
  progress_percent smallint NOT NULL DEFAULT 0,
  progress_step text NOT NULL DEFAULT '',
  PRIMARY KEY (organization_id, task_id)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
GRANT SELECT, UPDATE, DELETE ON task_leases TO genie_app;
CALL protect_tenant_table('task_leases');
CALL allow_system('task_leases', 'SELECT, INSERT, UPDATE, DELETE');

-- What attempts have made outside: the journal that the next attempt is handed.
CREATE TABLE task_effects (
  organization_id uuid NOT NULL,
  task_id uuid NOT NULL,
  key text COLLATE "C" NOT NULL,
  reference text NOT NULL,
  attempt int NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (organization_id, task_id, key)
);
GRANT SELECT ON task_effects TO genie_app;
CALL protect_tenant_table('task_effects');
CALL allow_system('task_effects', 'SELECT, INSERT, UPDATE, DELETE');

-- Logs, as they came. Partitioned by day, so that old ones go at once.
CREATE TABLE task_logs (
  organization_id uuid NOT NULL,
  task_id uuid NOT NULL,
  attempt int NOT NULL,
  stream smallint NOT NULL,  -- LogStream
  log_offset bigint NOT NULL,
  log_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  data bytea NOT NULL,
  PRIMARY KEY (organization_id, task_id, attempt, stream, log_offset, log_time)
) PARTITION BY RANGE (log_time);
CREATE TABLE task_logs_default PARTITION OF task_logs DEFAULT;
ALTER TABLE task_logs_default ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
GRANT SELECT ON task_logs TO genie_app;
CALL protect_tenant_table('task_logs');
CALL allow_system('task_logs', 'SELECT, INSERT, DELETE');

-- Every change of a task's state. Append-only: genie_app may read, the trigger below writes.
CREATE TABLE task_events (
  organization_id uuid NOT NULL,
  position xid8 NOT NULL,  -- tasks.event_position
  sequence bigint NOT NULL DEFAULT nextval('event_sequence'),
  event_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  task_id uuid NOT NULL,
  from_state text,  -- NULL: the task is new
  to_state text NOT NULL,
  attempt int NOT NULL,
  reason text NOT NULL,
  actor text NOT NULL,
  PRIMARY KEY (organization_id, position, sequence, event_time)
) PARTITION BY RANGE (event_time);
CREATE TABLE task_events_default PARTITION OF task_events DEFAULT;
ALTER TABLE task_events_default ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
GRANT SELECT ON task_events TO genie_app;
CALL protect_tenant_table('task_events');
CALL allow_system('task_events', 'SELECT, INSERT, DELETE');

-- Statement trigger, so that a batch of changes costs little more than one. (A join that loops would compare all with all.)
CREATE FUNCTION write_task_events() RETURNS trigger
  LANGUAGE plpgsql SET enable_nestloop = off
AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO task_events (organization_id, position, task_id, from_state, to_state, attempt, reason, actor)
      SELECT organization_id, event_position, task_id, NULL, state, attempt, state_reason, state_actor FROM after;
  ELSE
    INSERT INTO task_events (organization_id, position, task_id, from_state, to_state, attempt, reason, actor)
      SELECT organization_id, a.event_position, task_id, b.state, a.state, a.attempt, a.state_reason, a.state_actor
        FROM after a JOIN before b USING (organization_id, task_id)
       WHERE a.state <> b.state;
  END IF;
  RETURN NULL;
END
$$;
CALL make_system_function('write_task_events()');
-- Whichever of the two a statement names: its triggers run, not the other's.
CREATE TRIGGER events_of_new AFTER INSERT ON tasks REFERENCING NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION write_task_events();
CREATE TRIGGER events AFTER UPDATE ON tasks REFERENCING OLD TABLE AS before NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION write_task_events();
CREATE TRIGGER events_of_new AFTER INSERT ON tasks_live REFERENCING NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION write_task_events();
CREATE TRIGGER events AFTER UPDATE ON tasks_live REFERENCING OLD TABLE AS before NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION write_task_events();

-- As before, in PL/pgSQL, which keeps its plans: planning was a third of what CreateTask costs.
CREATE OR REPLACE FUNCTION changed_fields(before jsonb, after jsonb) RETURNS jsonb
  LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
  IF before IS NULL THEN
    RETURN jsonb_strip_nulls(after);
  ELSIF after IS NULL THEN
    RETURN jsonb_strip_nulls(before);
  END IF;
  RETURN (SELECT jsonb_object_agg(key, jsonb_build_array(before -> key, value))
            FROM jsonb_each(after) WHERE value IS DISTINCT FROM before -> key);
END
$$;
CREATE OR REPLACE FUNCTION write_audit_event(organization_id uuid, operation text, collection text, row_count bigint,
                                             resource_uid text, changes jsonb) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
BEGIN
  INSERT INTO audit_events (organization_id, caller, method, request_id, operation, collection, resource_uid,
                            row_count, changes_json)
    SELECT $1, call_setting('caller', 'system'), call_setting('method', ''), call_setting('request_id', ''), $2, $3,
           CASE WHEN $4 = 1 THEN $5 ELSE '' END, $4, CASE WHEN $4 = 1 THEN $6::text ELSE '' END
     WHERE EXISTS (SELECT FROM organizations o WHERE o.organization_id = $1);
END
$$;

-- What people and services change; what agents change stands in task_events.
CREATE TRIGGER audit_insert AFTER INSERT ON tasks REFERENCING NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION audit('tasks', 'task_id', '{payload,filed_time,state_reason,state_actor,event_position}');
CREATE TRIGGER audit_update AFTER UPDATE ON tasks REFERENCING OLD TABLE AS before NEW TABLE AS after
  FOR EACH STATEMENT WHEN (current_setting('genie.method', true) LIKE '%.TaskService.%')
  EXECUTE FUNCTION audit('tasks', 'task_id', '{payload,filed_time,state_reason,state_actor,event_position}');

-- The columns of message Task but its payload.
CREATE FUNCTION task_message(t tasks, organization_slug text) RETURNS TABLE (
    name text, uid uuid, kind smallint, labels jsonb, target_agent text, priority smallint, time_to_live interval,
    max_attempts smallint, idempotency_key text, state text, attempt int, start_count smallint, agent text,
    progress_percent smallint, progress_step text, "failure.reason" text, "failure.message" text,
    "failure.permanent" boolean, outputs jsonb, "cancellation.mode" smallint, "cancellation.grace" interval,
    "cancellation.reason" text, "cancellation.caller" text, "cancellation.cancel_time" timestamptz,
    "cancellation.answer" smallint, creator text, create_time timestamptz, update_time timestamptz,
    next_attempt_time timestamptz, expire_time timestamptz, start_time timestamptz, end_time timestamptz, etag text)
  LANGUAGE sql STABLE
AS $$
  SELECT 'organizations/' || organization_slug || '/tasks/' || (t).task_id, (t).task_id, (t).kind, (t).labels,
         'organizations/' || organization_slug || '/agents/' || (t).target_agent_id, (t).priority, (t).time_to_live,
         (t).max_attempts, (t).idempotency_key, (t).state, (t).attempt, (t).start_count,
         'organizations/' || organization_slug || '/agents/' || (t).agent_id,
         l.progress_percent, l.progress_step,
         nullif((t).failure_reason, ''), CASE WHEN (t).failure_reason <> '' THEN (t).failure_message END,
         CASE WHEN (t).failure_reason <> '' THEN (t).failure_permanent END, (t).outputs,
         (t).cancel_mode, (t).cancel_grace, CASE WHEN (t).cancel_mode IS NOT NULL THEN (t).cancel_reason END,
         CASE WHEN (t).cancel_mode IS NOT NULL THEN (t).cancel_caller END, (t).cancel_time,
         CASE WHEN (t).cancel_mode IS NOT NULL THEN (t).cancel_answer END,
         (t).creator, (t).create_time, (t).update_time,
         CASE WHEN (t).state = 'PENDING' THEN (t).next_attempt_time END,
         CASE WHEN (t).state = 'PENDING' THEN (t).expire_time END, (t).start_time, (t).end_time, (t).version::text
    FROM (SELECT WHERE (t).task_id IS NOT NULL) known
    LEFT JOIN task_leases l
      ON l.organization_id = (t).organization_id AND l.task_id = (t).task_id AND l.started
$$;

-- CancelTask. Step by step, each with a new view of the database: what another call does to the task before its row is
-- locked is seen in its lease too. No row: no such task.
CREATE FUNCTION cancel_task(organization_id uuid, task_id uuid, etag text, mode text, grace interval, reason text,
                            caller text, OUT refusal text, OUT state text, OUT task tasks)
  RETURNS SETOF record
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  wanted_mode smallint := CASE mode WHEN 'FORCED' THEN 2 ELSE 1 END;
  wanted_grace interval;
  before tasks;
BEGIN
  SELECT t.* INTO before FROM tasks t WHERE t.organization_id = $1 AND t.task_id = $2 FOR UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  wanted_grace := coalesce(grace, CASE before.state WHEN 'CANCELLING' THEN before.cancel_grace END, '30 seconds');
  state := before.state;
  refusal := CASE WHEN $3 NOT IN ('', before.version::text) THEN 'ETAG_MISMATCH'
                  WHEN before.state NOT IN ('PENDING', 'OFFERED', 'RUNNING', 'CANCELLING') THEN 'TASK_ENDED' END;
  IF refusal IS NULL THEN
    task := before;
    IF before.state <> 'CANCELLING' THEN
      UPDATE tasks t
         SET state = CASE before.state WHEN 'RUNNING' THEN 'CANCELLING' ELSE 'CANCELLED' END,
             state_reason = 'CANCELLED_BY_CALLER', state_actor = $7, cancel_mode = wanted_mode,
             cancel_grace = wanted_grace, cancel_reason = $6, cancel_caller = $7, cancel_time = now(), cancel_answer = 0,
             end_time = CASE WHEN before.state <> 'RUNNING' THEN now() END
       WHERE t.organization_id = $1 AND t.task_id = $2 AND t.filed_time = 'infinity'
      RETURNING t.* INTO task;
    ELSIF wanted_mode > before.cancel_mode OR wanted_grace < before.cancel_grace THEN
      UPDATE tasks t
         SET cancel_mode = greatest(t.cancel_mode, wanted_mode), cancel_grace = least(t.cancel_grace, wanted_grace),
             state_actor = $7
       WHERE t.organization_id = $1 AND t.task_id = $2 AND t.filed_time = 'infinity'
      RETURNING t.* INTO task;
    END IF;
    IF task.state = 'CANCELLED' THEN
      DELETE FROM task_leases l WHERE l.organization_id = $1 AND l.task_id = $2;
    ELSIF task.version <> before.version AND before.cancel_answer < 2 THEN
      UPDATE task_leases l SET cancelling = true WHERE l.organization_id = $1 AND l.task_id = $2;
    END IF;
  END IF;
  RETURN NEXT;
END
$$;

-- The columns of message Agent but a key's secret. new_key_prefix: of the key that the same statement makes. A replica's
-- lease is renewed every second for 15: its agents were heard so long before it ends, to a second.
CREATE FUNCTION agent_message(a agents, organization_slug text, new_key_prefix text DEFAULT NULL) RETURNS TABLE (
    name text, uid uuid, display_name text, state text, state_time timestamptz, last_seen_time timestamptz,
    version text, labels jsonb, kinds smallint[], running_tasks text[], key_prefix text, key_offered boolean,
    creator text, create_time timestamptz, update_time timestamptz, etag text)
  LANGUAGE sql STABLE
AS $$
  SELECT 'organizations/' || organization_slug || '/agents/' || (a).agent_id, (a).agent_id, (a).display_name,
         CASE WHEN now.connected THEN 'CONNECTED' ELSE 'DISCONNECTED' END,
         CASE WHEN now.connected THEN s.connect_time ELSE now.gone_time END,
         CASE WHEN now.connected THEN greatest(s.connect_time, r.lease_time - interval '15 seconds')
              ELSE now.gone_time END,
         s.version, s.labels, s.kinds,
         (SELECT array_agg('organizations/' || organization_slug || '/tasks/' || l.task_id ORDER BY l.task_id)
            FROM (SELECT l.task_id FROM task_leases l
                   WHERE l.organization_id = (a).organization_id AND l.agent_id = (a).agent_id
                   ORDER BY l.task_id LIMIT 100) l),
         coalesce(new_key_prefix, (SELECT k.key_prefix FROM agent_keys k
                                    WHERE k.organization_id = (a).organization_id AND k.agent_id = (a).agent_id
                                    ORDER BY k.agent_key_id DESC LIMIT 1)),
         (a).key_offer_time IS NOT NULL, (a).creator, (a).create_time, (a).update_time, (a).version::text
    FROM (SELECT WHERE (a).agent_id IS NOT NULL) known
    LEFT JOIN agent_sessions s ON s.organization_id = (a).organization_id AND s.agent_id = (a).agent_id
    LEFT JOIN replicas r ON r.replica_id = s.replica_id
   CROSS JOIN LATERAL (SELECT coalesce(s.disconnect_time IS NULL AND r.lease_time > now(), false) AS connected,
                              coalesce(s.disconnect_time, r.lease_time, s.connect_time) AS gone_time) now
$$;
