-- Organizations, their members and their API keys.

-- The tenants.
CREATE TABLE organizations (
  organization_id uuid PRIMARY KEY,
  slug text COLLATE "C" NOT NULL,
  display_name text NOT NULL,
  -- Kept by a trigger on members; NULL until the first owner is invited. The row lock that its update takes makes
  -- two owners who go at the same time go one after the other.
  owner_count int CONSTRAINT last_owner CHECK (owner_count > 0),
  version int NOT NULL DEFAULT 1,
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  delete_time timestamptz,
  purge_time timestamptz,
  CHECK ((delete_time IS NULL) = (purge_time IS NULL))
);
CREATE INDEX organizations_to_purge ON organizations (organization_id) WHERE delete_time IS NOT NULL;
CREATE TRIGGER version BEFORE UPDATE OF display_name, delete_time, purge_time ON organizations
  FOR EACH ROW EXECUTE FUNCTION next_version();
GRANT SELECT, INSERT, UPDATE ON organizations TO genie_app;
CALL protect_tenant_table('organizations');
CALL allow_system('organizations', 'SELECT, UPDATE, DELETE');

-- Reference table: slugs are unique over all organizations, and the way from a slug to an organization.
CREATE TABLE organization_slugs (
  slug text COLLATE "C" CONSTRAINT organization_exists PRIMARY KEY,
  organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  -- The CreateOrganization call that took it.
  request_id uuid CONSTRAINT organization_slugs_request_id UNIQUE
);
CREATE INDEX organization_slugs_organization ON organization_slugs (organization_id);
GRANT SELECT, INSERT ON organization_slugs TO genie_app;
CALL protect_tenant_table('organization_slugs');
CALL allow_system('organization_slugs', 'SELECT, DELETE');

-- The people of an organization.
CREATE TABLE members (
  organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  member_id uuid NOT NULL,
  email text COLLATE "C" NOT NULL CHECK (email = lower(email)),
  role smallint NOT NULL CHECK (role BETWEEN 1 AND 5),        -- devopsgenie.options.Role
  subject text COLLATE "C" CHECK (subject <> ''),  -- NULL until the first call
  version int NOT NULL DEFAULT 1,
  request_id uuid,
  bind_time timestamptz,
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (organization_id, member_id),
  CONSTRAINT member_exists UNIQUE (organization_id, email),
  CONSTRAINT members_subject UNIQUE (organization_id, subject)
);
CREATE UNIQUE INDEX members_request_id ON members (organization_id, request_id) WHERE request_id IS NOT NULL;
CREATE TRIGGER version BEFORE UPDATE ON members FOR EACH ROW EXECUTE FUNCTION next_version();
GRANT SELECT, INSERT, UPDATE, DELETE ON members TO genie_app;
CALL protect_tenant_table('members');
CALL allow_system('members', 'SELECT, UPDATE, DELETE');

-- Reference table, kept by a trigger: the way from a person to the organizations, by subject once it is bound, before
-- that by e-mail address.
CREATE TABLE memberships (
  organization_id uuid NOT NULL,
  member_id uuid NOT NULL,
  person text COLLATE "C" NOT NULL,  -- `subject:…` or `email:…`
  PRIMARY KEY (organization_id, member_id),
  FOREIGN KEY (organization_id, member_id) REFERENCES members ON DELETE CASCADE
);
CREATE INDEX memberships_person ON memberships (person, organization_id);
CALL protect_tenant_table('memberships');
CALL allow_system('memberships', 'SELECT, INSERT, UPDATE, DELETE');

CREATE FUNCTION person(member members) RETURNS text
  LANGUAGE sql IMMUTABLE
AS $$ SELECT coalesce('subject:' || member.subject, 'email:' || member.email) $$;

CREATE FUNCTION keep_membership() RETURNS trigger
  LANGUAGE plpgsql
AS $$
BEGIN
  INSERT INTO memberships VALUES (NEW.organization_id, NEW.member_id, person(NEW))
    ON CONFLICT (organization_id, member_id) DO UPDATE SET person = excluded.person;
  RETURN NULL;
END
$$;
CALL make_system_function('keep_membership()');
CREATE TRIGGER membership AFTER INSERT OR UPDATE OF email, subject ON members
  FOR EACH ROW EXECUTE FUNCTION keep_membership();

CREATE FUNCTION count_owners() RETURNS trigger
  LANGUAGE plpgsql
AS $$
DECLARE
  gone int := (TG_OP <> 'INSERT' AND OLD.role = 5)::int;
  come int := (TG_OP <> 'DELETE' AND NEW.role = 5)::int;
BEGIN
  UPDATE organizations o SET owner_count = coalesce(o.owner_count, 0) + come - gone
   WHERE o.organization_id = coalesce(NEW.organization_id, OLD.organization_id) AND come <> gone;
  RETURN NULL;
END
$$;
CREATE TRIGGER owners AFTER INSERT OR DELETE OR UPDATE OF role ON members
  FOR EACH ROW EXECUTE FUNCTION count_owners();

-- Credentials for programs.
CREATE TABLE api_keys (
  organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  api_key_id uuid NOT NULL,
  key_prefix text COLLATE "C" NOT NULL,
  secret_sha256 bytea NOT NULL CHECK (length(secret_sha256) = 32),  -- the key itself is stored nowhere
  display_name text NOT NULL,
  role smallint NOT NULL CHECK (role BETWEEN 1 AND 5),
  creator text NOT NULL,
  version int NOT NULL DEFAULT 1,
  request_id uuid,
  expire_time timestamptz,
  revoke_time timestamptz,
  last_use_date date,  -- written in batches; no change as etag and audit see it
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (organization_id, api_key_id)
);
CREATE UNIQUE INDEX api_keys_request_id ON api_keys (organization_id, request_id) WHERE request_id IS NOT NULL;
CREATE TRIGGER version BEFORE UPDATE OF revoke_time ON api_keys FOR EACH ROW EXECUTE FUNCTION next_version();
GRANT SELECT, INSERT, UPDATE ON api_keys TO genie_app;
CALL protect_tenant_table('api_keys');
CALL allow_system('api_keys', 'SELECT, UPDATE, DELETE');

-- Reference table: the way from a key's prefix to the key.
CREATE TABLE api_key_prefixes (
  key_prefix text COLLATE "C" PRIMARY KEY,
  organization_id uuid NOT NULL,
  api_key_id uuid NOT NULL,
  FOREIGN KEY (organization_id, api_key_id) REFERENCES api_keys ON DELETE CASCADE
);
CREATE INDEX api_key_prefixes_key ON api_key_prefixes (organization_id, api_key_id);
GRANT SELECT, INSERT ON api_key_prefixes TO genie_app;
CALL protect_tenant_table('api_key_prefixes');
CALL allow_system('api_key_prefixes', 'SELECT, DELETE');
