-- Cloud accounts and their sealed credentials.

CREATE TABLE cloud_accounts (
  organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  cloud_account_id uuid NOT NULL,
  provider text COLLATE "C" NOT NULL CHECK (provider IN ('AWS', 'AZURE', 'GCP', 'KUBERNETES', 'GITHUB')),
  account_uid text COLLATE "C" NOT NULL,
  display_name text NOT NULL,
  external_id text NOT NULL,  -- AWS: made here and never changed; else empty
  version int NOT NULL DEFAULT 1,
  request_id uuid,
  credentials_time timestamptz,
  last_scan_id uuid,  -- the last one that completed; no change as etag and audit see it
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (organization_id, cloud_account_id),
  CONSTRAINT cloud_account_exists UNIQUE (organization_id, provider, account_uid)
);
CREATE UNIQUE INDEX cloud_accounts_request_id ON cloud_accounts (organization_id, request_id)
  WHERE request_id IS NOT NULL;
CREATE TRIGGER version BEFORE UPDATE OF display_name, credentials_time ON cloud_accounts
  FOR EACH ROW EXECUTE FUNCTION next_version();
GRANT SELECT, INSERT, UPDATE, DELETE ON cloud_accounts TO genie_app;
CALL protect_tenant_table('cloud_accounts');
CALL allow_system('cloud_accounts', 'SELECT, DELETE');

-- Whether an account_uid has its provider's form. In SQL, beside the data that it guards; the proto file says the
-- same in words.
CREATE FUNCTION account_uid_valid(provider text, account_uid text) RETURNS boolean
  LANGUAGE sql IMMUTABLE
AS $$
  SELECT CASE provider
    WHEN 'AWS' THEN account_uid ~ '^[0-9]{12}$'
    WHEN 'AZURE' THEN account_uid ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$'
    WHEN 'GCP' THEN account_uid ~ '^[a-z][a-z0-9-]{4,28}[a-z0-9]$'
    WHEN 'KUBERNETES' THEN account_uid ~ '^[^[:space:][:cntrl:]]{1,253}$'
    WHEN 'GITHUB' THEN account_uid ~ '^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$' AND length(account_uid) <= 39
    ELSE false
  END
$$;

-- The vault's data keys, wrapped by a key-encryption key that is not in the database. Each belongs to one record.
CREATE TABLE organization_keys (
  organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  data_key_id uuid NOT NULL,
  kek_id text NOT NULL,
  wrapped_data_key bytea NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (organization_id, data_key_id)
);
GRANT SELECT (organization_id, data_key_id), INSERT, DELETE ON organization_keys TO genie_app;
CALL protect_tenant_table('organization_keys');
CALL allow_system('organization_keys', 'SELECT, DELETE');

-- The vault's records: one for an account at most.
CREATE TABLE credentials (
  organization_id uuid NOT NULL,
  credentials_id uuid NOT NULL,
  cloud_account_id uuid NOT NULL,
  data_key_id uuid NOT NULL,
  ciphertext bytea NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (organization_id, credentials_id),
  FOREIGN KEY (organization_id, cloud_account_id) REFERENCES cloud_accounts ON DELETE CASCADE,
  FOREIGN KEY (organization_id, data_key_id) REFERENCES organization_keys ON DELETE CASCADE
);
CREATE INDEX credentials_account ON credentials (organization_id, cloud_account_id);
CREATE INDEX credentials_data_key ON credentials (organization_id, data_key_id);
-- No request reads a ciphertext.
GRANT SELECT (organization_id, credentials_id, cloud_account_id, data_key_id), INSERT, DELETE ON credentials
  TO genie_app;
CALL protect_tenant_table('credentials');
CALL allow_system('credentials', 'SELECT, DELETE');

-- A record that goes takes its data key with it, on whatever way it goes.
CREATE FUNCTION drop_data_key() RETURNS trigger
  LANGUAGE plpgsql
AS $$
BEGIN
  DELETE FROM organization_keys k
   WHERE k.organization_id = OLD.organization_id AND k.data_key_id = OLD.data_key_id;
  RETURN NULL;
END
$$;
CALL make_system_function('drop_data_key()');
CREATE TRIGGER data_key AFTER DELETE ON credentials FOR EACH ROW EXECUTE FUNCTION drop_data_key();
