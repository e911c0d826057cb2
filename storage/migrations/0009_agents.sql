-- Agents, their keys and their sessions on the task channel.

-- Reference table: the servers that run now. A session counts for as long as its replica's lease holds, so that ten
-- thousand agents' heartbeats write nothing.
CREATE TABLE replicas (
  replica_id uuid PRIMARY KEY,
  start_time timestamptz NOT NULL DEFAULT now(),
  lease_time timestamptz NOT NULL
) WITH (fillfactor = 50);
GRANT SELECT ON replicas TO genie_app;
ALTER TABLE replicas ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY reference ON replicas FOR SELECT USING (true);
CALL allow_system('replicas', 'SELECT, INSERT, UPDATE, DELETE');

CREATE TABLE agents (
  organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  agent_id uuid NOT NULL,
  display_name text NOT NULL,
  creator text NOT NULL,
  -- A key is to be handed over in the channel: asked for then, and older keys end so long after its first use.
  key_offer_time timestamptz,
  key_offer_overlap interval,
  version int NOT NULL DEFAULT 1,
  request_id uuid,
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (organization_id, agent_id)
);
CREATE UNIQUE INDEX agents_request_id ON agents (organization_id, request_id) WHERE request_id IS NOT NULL;
CREATE TRIGGER version BEFORE UPDATE ON agents FOR EACH ROW EXECUTE FUNCTION next_version();
GRANT SELECT, INSERT, UPDATE, DELETE ON agents TO genie_app;
CALL protect_tenant_table('agents');
CALL allow_system('agents', 'SELECT, UPDATE, DELETE');

-- An agent's keys: the newest, and older ones until they end.
CREATE TABLE agent_keys (
  organization_id uuid NOT NULL,
  agent_id uuid NOT NULL,
  agent_key_id uuid NOT NULL,
  key_prefix text COLLATE "C" NOT NULL,
  secret_sha256 bytea NOT NULL CHECK (length(secret_sha256) = 32),  -- the key itself is stored nowhere
  offered boolean NOT NULL DEFAULT false,  -- handed over in the channel, and not used yet
  expire_time timestamptz,
  create_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (organization_id, agent_id, agent_key_id),
  FOREIGN KEY (organization_id, agent_id) REFERENCES agents ON DELETE CASCADE
);
GRANT SELECT, INSERT, UPDATE, DELETE ON agent_keys TO genie_app;
CALL protect_tenant_table('agent_keys');
CALL allow_system('agent_keys', 'SELECT, DELETE');

-- Reference table: the way from a key's prefix to the key.
CREATE TABLE agent_key_prefixes (
  key_prefix text COLLATE "C" PRIMARY KEY,
  organization_id uuid NOT NULL,
  agent_id uuid NOT NULL,
  agent_key_id uuid NOT NULL,
  FOREIGN KEY (organization_id, agent_id, agent_key_id) REFERENCES agent_keys ON DELETE CASCADE
);
CREATE INDEX agent_key_prefixes_key ON agent_key_prefixes (organization_id, agent_id, agent_key_id);
GRANT SELECT, INSERT ON agent_key_prefixes TO genie_app;
CALL protect_tenant_table('agent_key_prefixes');
CALL allow_system('agent_key_prefixes', 'SELECT, DELETE');

CREATE FUNCTION find_agent_key(key_prefix text)
  RETURNS TABLE (organization_id uuid, organization_slug text, organization_deleted boolean, agent_id uuid,
                 agent_key_id uuid, secret_sha256 bytea, expire_time timestamptz)
  LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT k.organization_id, o.slug, o.delete_time IS NOT NULL, k.agent_id, k.agent_key_id, k.secret_sha256,
           k.expire_time
      FROM agent_key_prefixes p
      JOIN agent_keys k USING (organization_id, agent_id, agent_key_id)
      JOIN agents a USING (organization_id, agent_id)
      JOIN organizations o USING (organization_id)
     WHERE p.key_prefix = $1 AND (a.key_offer_time IS NOT NULL OR NOT k.offered) AND (o.purge_time IS NULL OR o.purge_time > now());
END
$$;
CALL make_system_function('find_agent_key(text)');

-- An agent's last session. A higher epoch takes over from a lower one.
CREATE TABLE agent_sessions (
  organization_id uuid NOT NULL,
  agent_id uuid NOT NULL,
  session_epoch bigint NOT NULL,
  replica_id uuid NOT NULL,
  instance_id uuid NOT NULL,
  version text NOT NULL,
  labels jsonb NOT NULL,
  kinds smallint[] NOT NULL,  -- TaskKind
  connect_time timestamptz NOT NULL DEFAULT now(),
  disconnect_time timestamptz,
  disconnect_reason text NOT NULL DEFAULT '',
  event_position xid8 NOT NULL DEFAULT pg_current_xact_id(),  -- of the last event
  PRIMARY KEY (organization_id, agent_id),
  FOREIGN KEY (organization_id, agent_id) REFERENCES agents ON DELETE CASCADE
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE ON agent_sessions TO genie_app;
CALL protect_tenant_table('agent_sessions');
CALL allow_system('agent_sessions', 'SELECT, UPDATE, DELETE');

-- Positions of events: (position, sequence). Readers take only those below the oldest transaction that still runs:
-- nothing can come in before them any more, in whatever order transactions commit. The position of an event is its
-- transaction, or that of the event before it of the same task or session, if that is higher: a transaction that began
-- early and waited for a row comes behind what it waited for.
CREATE SEQUENCE event_sequence;
GRANT USAGE ON SEQUENCE event_sequence TO genie_system;

-- What happened to agents. Append-only: genie_app may read, triggers write.
CREATE TABLE agent_events (
  organization_id uuid NOT NULL,
  position xid8 NOT NULL DEFAULT pg_current_xact_id(),
  sequence bigint NOT NULL DEFAULT nextval('event_sequence'),
  event_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  agent_id uuid NOT NULL,
  event smallint NOT NULL,  -- WatchAgentsResponse.Event
  reason text NOT NULL,
  PRIMARY KEY (organization_id, position, sequence, event_time)
) PARTITION BY RANGE (event_time);
CREATE TABLE agent_events_default PARTITION OF agent_events DEFAULT;
ALTER TABLE agent_events_default ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
GRANT SELECT ON agent_events TO genie_app;
CALL protect_tenant_table('agent_events');
CALL allow_system('agent_events', 'SELECT, INSERT, DELETE');
ALTER TABLE agent_events OWNER TO genie_system;
ALTER TABLE agent_events_default OWNER TO genie_system;
CALL allow_system('agent_events_default', 'SELECT, INSERT, DELETE');

-- The newest transaction that has ended.
CREATE FUNCTION last_transaction() RETURNS xid8
  LANGUAGE sql
AS $$ SELECT (pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)::text::xid8 $$;

CREATE FUNCTION write_agent_events() RETURNS trigger
  LANGUAGE plpgsql
AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO agent_events (organization_id, agent_id, event, reason)
      SELECT organization_id, agent_id, 1, '' FROM after;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO agent_events (organization_id, agent_id, event, reason)
      SELECT organization_id, agent_id, 2, '' FROM after;
  ELSE  -- behind what the transaction has waited for: a session that began meanwhile
    INSERT INTO agent_events (organization_id, position, agent_id, event, reason)
      SELECT b.organization_id, greatest(pg_current_xact_id(), last_transaction()), b.agent_id, 5, ''
        FROM before b JOIN organizations o USING (organization_id);  -- not where the organization is purged
  END IF;
  RETURN NULL;
END
$$;
CALL make_system_function('write_agent_events()');
CREATE TRIGGER events_of_new AFTER INSERT ON agents REFERENCING NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION write_agent_events();
CREATE TRIGGER events AFTER UPDATE ON agents REFERENCING NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION write_agent_events();
CREATE TRIGGER events_of_deleted AFTER DELETE ON agents REFERENCING OLD TABLE AS before
  FOR EACH STATEMENT EXECUTE FUNCTION write_agent_events();

CREATE FUNCTION next_session_position() RETURNS trigger
  LANGUAGE plpgsql
AS $$
BEGIN
  NEW.event_position := greatest(OLD.event_position, pg_current_xact_id());
  RETURN NEW;
END
$$;
CREATE TRIGGER position BEFORE UPDATE ON agent_sessions FOR EACH ROW EXECUTE FUNCTION next_session_position();

-- Sessions: a row that gets a new epoch has connected, one that gets a disconnect_time has gone.
CREATE FUNCTION write_session_events() RETURNS trigger
  LANGUAGE plpgsql
AS $$
BEGIN
  IF NEW.disconnect_time IS NULL THEN
    INSERT INTO agent_events (organization_id, position, agent_id, event, reason)
      VALUES (NEW.organization_id, NEW.event_position, NEW.agent_id, 3, '');
  ELSIF TG_OP = 'UPDATE' AND OLD.disconnect_time IS NULL THEN
    INSERT INTO agent_events (organization_id, position, agent_id, event, reason)
      VALUES (NEW.organization_id, NEW.event_position, NEW.agent_id, 4, NEW.disconnect_reason);
  END IF;
  RETURN NULL;
END
$$;
CALL make_system_function('write_session_events()');
CREATE TRIGGER events AFTER INSERT OR UPDATE ON agent_sessions
  FOR EACH ROW EXECUTE FUNCTION write_session_events();

CALL audit_table('agents', 'agents', 'agent_id', '{}');
CALL audit_table('agent_keys', 'agentKeys', 'agent_key_id', '{secret_sha256}');
