-- Scans, what they said about checks and resources, and where their results wait until they are complete.

-- Reference table: services whose resources belong to no region, whatever region a scanner was asked for.
CREATE TABLE global_services (
  provider text COLLATE "C",
  service text COLLATE "C",
  PRIMARY KEY (provider, service)
);
INSERT INTO global_services
  SELECT 'AWS', unnest(ARRAY['account', 'artifact', 'billing', 'budgets', 'cloudfront', 'globalaccelerator', 'health',
                             'iam', 'networkmanager', 'organizations', 'route53', 'shield', 'support',
                             'trustedadvisor', 'waf']);
GRANT SELECT ON global_services TO genie_app;
ALTER TABLE global_services ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY reference ON global_services FOR SELECT USING (true);

-- One run of a scanner over an account.
CREATE TABLE scans (
  organization_id uuid NOT NULL,
  scan_id uuid NOT NULL,
  cloud_account_id uuid NOT NULL,
  state text NOT NULL DEFAULT 'RUNNING' CHECK (state IN ('RUNNING', 'COMPLETED', 'FAILED')),
  scanner text NOT NULL,
  scanner_version text NOT NULL,
  scan_time timestamptz NOT NULL,  -- when the scanner looked, as it says
  partial boolean NOT NULL DEFAULT false,
  extent text NOT NULL CHECK (extent IN ('REPORTED', 'WHOLE_ACCOUNT', 'LISTED')),
  services text[] COLLATE "C" NOT NULL,
  regions text[] COLLATE "C" NOT NULL,
  pair_count int NOT NULL DEFAULT 0,
  pass_count int NOT NULL DEFAULT 0,
  fail_count int NOT NULL DEFAULT 0,
  manual_count int NOT NULL DEFAULT 0,
  refused_count int NOT NULL DEFAULT 0,
  muted_count int NOT NULL DEFAULT 0,
  created_count int NOT NULL DEFAULT 0,
  unchanged_count int NOT NULL DEFAULT 0,
  passed_count int NOT NULL DEFAULT 0,
  unreported_count int NOT NULL DEFAULT 0,
  regressed_count int NOT NULL DEFAULT 0,
  failure text NOT NULL DEFAULT '',
  creator text NOT NULL,
  request_id uuid NOT NULL,
  create_time timestamptz NOT NULL DEFAULT now(),
  end_time timestamptz,
  PRIMARY KEY (organization_id, scan_id),
  FOREIGN KEY (organization_id, cloud_account_id) REFERENCES cloud_accounts ON DELETE CASCADE
);
CREATE UNIQUE INDEX scan_running ON scans (organization_id, cloud_account_id) WHERE state = 'RUNNING';
CREATE INDEX scans_account ON scans (organization_id, cloud_account_id);
GRANT SELECT, INSERT, UPDATE ON scans TO genie_app;
CALL protect_tenant_table('scans');
CALL allow_system('scans', 'SELECT, UPDATE, DELETE');

-- The columns of message Scan. Statements of an older release select from it: columns come and go under a new
-- function name only.
CREATE FUNCTION scan_message(s scans, organization_slug text) RETURNS TABLE (
    name text, uid uuid, cloud_account text, state text, scanner text, scanner_version text, scan_time timestamptz,
    partial boolean, "coverage.extent" text, "coverage.services" text[], "coverage.regions" text[], pair_count int,
    "results.pass" int, "results.fail" int, "results.manual" int, "results.refused" int, "results.muted" int,
    "findings.created" int, "findings.unchanged" int, "findings.passed" int, "findings.unreported" int,
    "findings.regressed" int, failure text, creator text, create_time timestamptz, end_time timestamptz)
  LANGUAGE sql STABLE
AS $$
  SELECT 'organizations/' || organization_slug || '/scans/' || (s).scan_id, (s).scan_id,
         'organizations/' || organization_slug || '/cloudAccounts/' || (s).cloud_account_id, (s).state, (s).scanner,
         (s).scanner_version, (s).scan_time, (s).partial, (s).extent, (s).services, (s).regions, (s).pair_count,
         (s).pass_count, (s).fail_count, (s).manual_count, (s).refused_count, (s).muted_count, (s).created_count,
         (s).unchanged_count, (s).passed_count, (s).unreported_count, (s).regressed_count, (s).failure, (s).creator,
         (s).create_time, (s).end_time
   WHERE (s).scan_id IS NOT NULL
$$;

-- What scanners say about a check, once for an organization. Written where content_hash differs.
CREATE TABLE checks (
  organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  check_id uuid NOT NULL,
  provider text COLLATE "C" NOT NULL,
  check_key text COLLATE "C" NOT NULL,  -- such as s3_bucket_versioning
  service text COLLATE "C" NOT NULL,
  title text NOT NULL DEFAULT '',
  description text NOT NULL DEFAULT '',
  risk text NOT NULL DEFAULT '',
  remediation text NOT NULL DEFAULT '',
  reference_urls text[] NOT NULL DEFAULT '{}',
  compliance_json text NOT NULL DEFAULT '',  -- from framework to requirements, as the scanner wrote it
  content_hash bytea NOT NULL DEFAULT '',    -- SHA-256 of the above; empty: known by its key alone
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (organization_id, check_id),
  UNIQUE (organization_id, provider, check_key)
);
GRANT SELECT, INSERT, UPDATE ON checks TO genie_app;
CALL protect_tenant_table('checks');
CALL allow_system('checks', 'SELECT, DELETE');

-- What scanners say about a resource. Written where content_hash differs.
CREATE TABLE resources (
  organization_id uuid NOT NULL,
  resource_id uuid NOT NULL,
  cloud_account_id uuid NOT NULL,
  -- SHA-256 of resource_uid and scope_region, each with its length before it, so of texts of any length.
  identity bytea NOT NULL,
  resource_uid text COLLATE "C" NOT NULL,
  scope_region text COLLATE "C" NOT NULL,  -- empty for a global service: then the region tells nothing apart
  region text NOT NULL,        -- as the scanner first named it
  display_name text NOT NULL DEFAULT '',
  type text NOT NULL DEFAULT '',
  service text COLLATE "C" NOT NULL DEFAULT '',
  labels text[] NOT NULL DEFAULT '{}',
  metadata_json text NOT NULL DEFAULT '',
  content_hash bytea NOT NULL DEFAULT '',  -- SHA-256 of the five above; empty: known by its key alone
  create_time timestamptz NOT NULL DEFAULT now(),
  update_time timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (organization_id, resource_id),
  UNIQUE (organization_id, cloud_account_id, resource_id),
  UNIQUE (organization_id, cloud_account_id, identity),
  FOREIGN KEY (organization_id, cloud_account_id) REFERENCES cloud_accounts ON DELETE CASCADE
);
GRANT SELECT, INSERT, UPDATE ON resources TO genie_app;
CALL protect_tenant_table('resources');
CALL allow_system('resources', 'SELECT, DELETE');

-- What is known of the (check, region) pairs of an account. A scan that finds in a pair what the scan before found
-- there needs to look no closer and writes nothing but this.
CREATE TABLE account_coverage (
  organization_id uuid NOT NULL,
  cloud_account_id uuid NOT NULL,
  check_id uuid NOT NULL,
  scope_region text COLLATE "C" NOT NULL,
  -- The last scan that saw every active finding of the pair: last_seen_time of a finding is derived from it.
  scan_id uuid NOT NULL,
  scan_time timestamptz NOT NULL,
  active_count int NOT NULL,  -- the pair's findings that are not RESOLVED: only scans change that
  -- Two sums over hashes of that scan's results of the pair, in any order; NULL where the findings of the pair do not
  -- follow from one scan's results alone.
  digest_high bigint,
  digest_low bigint,
  PRIMARY KEY (organization_id, cloud_account_id, check_id, scope_region),
  FOREIGN KEY (organization_id, cloud_account_id) REFERENCES cloud_accounts ON DELETE CASCADE
) WITH (fillfactor = 50);  -- every scan updates its pairs, in place
GRANT SELECT, INSERT, UPDATE ON account_coverage TO genie_app;
CALL protect_tenant_table('account_coverage');
CALL allow_system('account_coverage', 'DELETE');

-- How many results each (check, region) pair of a scan had: arrays that run in parallel, one row a scan, since a row
-- for each pair would make the ten-thousandth scan of a quiet account the biggest part of the database.
CREATE TABLE scan_results (
  organization_id uuid NOT NULL,
  scan_id uuid NOT NULL,
  check_ids uuid[] NOT NULL,
  scope_regions text[] NOT NULL,
  pass_counts int[] NOT NULL,
  fail_counts int[] NOT NULL,
  manual_counts int[] NOT NULL,
  PRIMARY KEY (organization_id, scan_id),
  FOREIGN KEY (organization_id, scan_id) REFERENCES scans ON DELETE CASCADE
);
GRANT SELECT, INSERT ON scan_results TO genie_app;
CALL protect_tenant_table('scan_results');
CALL allow_system('scan_results', 'DELETE');

-- The import of a RUNNING scan: how far it is, and until when its caller is believed to live. Unlogged, as the batches
-- are: after a crash both are empty, and the import begins again at its first record.
CREATE UNLOGGED TABLE import_runs (
  organization_id uuid NOT NULL,
  scan_id uuid NOT NULL,
  next_record bigint NOT NULL DEFAULT 1,
  lease_time timestamptz NOT NULL,
  PRIMARY KEY (organization_id, scan_id),
  FOREIGN KEY (organization_id, scan_id) REFERENCES scans ON DELETE CASCADE
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE, DELETE ON import_runs TO genie_app;
CALL protect_tenant_table('import_runs');
CALL allow_system('import_runs', 'SELECT, DELETE');

-- What came in, a row for each batch as it came: arrays that run in parallel. Nobody reads it before the end.
CREATE UNLOGGED TABLE import_batches (
  organization_id uuid NOT NULL,
  scan_id uuid NOT NULL,
  first_record bigint NOT NULL,
  refused_count int NOT NULL,
  -- Results.
  checks text[] COLLATE "C" NOT NULL,
  services text[] COLLATE "C" NOT NULL,
  resource_uids text[] COLLATE "C" NOT NULL,
  regions text[] COLLATE "C" NOT NULL,
  resource_names text[] COLLATE "C" NOT NULL,
  statuses smallint[] NOT NULL,    -- Evaluation.Status
  severities smallint[] NOT NULL,  -- Finding.Severity
  status_details text[] COLLATE "C" NOT NULL,
  muted boolean[] NOT NULL,
  -- The results by check and region: how many of each status, and the sums that make account_coverage's digest.
  pair_checks text[] COLLATE "C" NOT NULL,
  pair_services text[] COLLATE "C" NOT NULL,
  pair_regions text[] COLLATE "C" NOT NULL,
  pair_pass_counts int[] NOT NULL,
  pair_fail_counts int[] NOT NULL,
  pair_manual_counts int[] NOT NULL,
  pair_muted_counts int[] NOT NULL,
  pair_digests_high bigint[] NOT NULL,
  pair_digests_low bigint[] NOT NULL,
  -- Descriptions of checks.
  check_keys text[] COLLATE "C" NOT NULL,
  check_services text[] NOT NULL,
  check_titles text[] COLLATE "C" NOT NULL,
  check_descriptions text[] COLLATE "C" NOT NULL,
  check_risks text[] COLLATE "C" NOT NULL,
  check_remediations text[] COLLATE "C" NOT NULL,
  check_reference_urls jsonb[] NOT NULL,
  check_compliance text[] COLLATE "C" NOT NULL,
  -- Descriptions of resources.
  described_uids text[] COLLATE "C" NOT NULL,
  described_regions text[] COLLATE "C" NOT NULL,
  described_names text[] COLLATE "C" NOT NULL,
  described_types text[] NOT NULL,
  described_services text[] NOT NULL,
  described_labels jsonb[] NOT NULL,
  described_metadata text[] NOT NULL,
  described_lengths int[] NOT NULL,   -- of the metadata
  described_hashes bytea[] NOT NULL,  -- SHA-256 of name, type, service, labels and metadata
  PRIMARY KEY (organization_id, scan_id, first_record),
  FOREIGN KEY (organization_id, scan_id) REFERENCES import_runs ON DELETE CASCADE
);
-- Read once and thrown away: not worth compressing.
DO $$
DECLARE
  name text;
BEGIN
  FOR name IN SELECT attname FROM pg_attribute
               WHERE attrelid = 'import_batches'::regclass AND attnum > 0 AND attstorage = 'x' LOOP
    EXECUTE format('ALTER TABLE import_batches ALTER %I SET STORAGE EXTERNAL', name);
  END LOOP;
END
$$;
GRANT SELECT, INSERT, DELETE ON import_batches TO genie_app;
CALL protect_tenant_table('import_batches');
CALL allow_system('import_batches', 'DELETE');
