-- Fills a migrated database with organizations that have each had one scan, as large as a real one's to the
-- usual lengths of its texts. Run by a superuser: triggers and foreign keys are off, and the rows are as they would
-- have made them.
--
--   psql -v organizations=200 -v findings=1000000 -v spares=6 -f tests/bench/generate.sql <keys
--
-- `keys` has an API key a line, as bench-keys writes them: text, prefix, SHA-256. The spare organizations, last, have an
-- account and nothing in it. Schema bench holds what the benchmark needs to know, the keys' texts among it.
\set ON_ERROR_STOP on
\set QUIET on
SET session_replication_role = replica;
SET work_mem = '256MB';
SET maintenance_work_mem = '512MB';

CREATE SCHEMA bench;

CREATE TABLE bench.api_keys (number int GENERATED ALWAYS AS IDENTITY (START 0 MINVALUE 0), key_text text, key_prefix text,
                             secret_sha256 text);
\copy bench.api_keys (key_text, key_prefix, secret_sha256) FROM pstdin WITH (DELIMITER ' ')

CREATE TABLE bench.organizations AS
  SELECT number, uuid_v7() AS organization_id, 'bench-' || to_char(number, 'FM0000') AS slug, uuid_v7() AS cloud_account_id,
         (100000000000 + number)::text AS account_uid, uuid_v7() AS scan_id, uuid_v7() AS api_key_id, key_text,
         number >= :organizations AS spare
    FROM bench.api_keys WHERE number < :organizations + :spares ORDER BY number;

INSERT INTO organizations (organization_id, slug, display_name)
  SELECT organization_id, slug, 'Bench ' || number FROM bench.organizations;
INSERT INTO organization_slugs (slug, organization_id) SELECT slug, organization_id FROM bench.organizations;
INSERT INTO api_keys (organization_id, api_key_id, key_prefix, secret_sha256, display_name, role, creator)
  SELECT organization_id, api_key_id, key_prefix, decode(secret_sha256, 'hex'), 'bench', 2, 'service:bench'
    FROM bench.organizations JOIN bench.api_keys USING (number);
INSERT INTO api_key_prefixes (key_prefix, organization_id, api_key_id)
  SELECT key_prefix, organization_id, api_key_id FROM bench.organizations JOIN bench.api_keys USING (number);
INSERT INTO cloud_accounts (organization_id, cloud_account_id, provider, account_uid, display_name, external_id,
                            last_scan_id)
  SELECT organization_id, cloud_account_id, 'AWS', account_uid, 'bench', '', CASE WHEN NOT spare THEN scan_id END
    FROM bench.organizations;

-- A scan's shape: 311 checks in 3 regions, four findings a resource.
\set checks 311
SELECT :findings / :organizations AS per_organization, (:findings / :organizations + 3) / 4 AS resources \gset

CREATE TABLE bench.checks AS
  SELECT o.number, o.organization_id, s.place, uuid_v7() AS check_id,
         (ARRAY['ec2', 's3', 'rds', 'lambda', 'eks', 'kms', 'sns', 'sqs'])[1 + s.place % 8] AS service,
         (ARRAY[3, 3, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 6])[1 + s.place * 7 % 16]::smallint AS severity
    FROM bench.organizations o, generate_series(0, :checks - 1) s (place)
   WHERE NOT o.spare ORDER BY o.number, s.place;
INSERT INTO checks (organization_id, check_id, provider, check_key, service, title, description, risk, remediation,
                    reference_urls, compliance_json, content_hash)
  SELECT organization_id, check_id, 'AWS', service || '_resource_setting_' || place, service,
         rpad('Check ' || place, 64, ' looks at one of the settings'), rpad('**Check** ' || place, 217, prose),
         rpad('**Risk** ' || place, 297, prose), rpad('- Mend ' || place, 312, prose),
         ARRAY[rpad('https://docs.example.com/checks/' || place, 69, '/page')],
         '{"CIS-4.0.1": ["' || rpad('1.' || place, 400, '.1') || '"]}', sha256(place::text::bytea)
    FROM bench.checks, (VALUES (' shows that the resource is reachable in ways that nobody asked for;')) texts (prose);

CREATE TABLE bench.resources AS
  SELECT o.number, o.organization_id, o.cloud_account_id, s.place, uuid_v7() AS resource_id,
         (ARRAY['us-east-1', 'eu-west-1', 'ap-northeast-1'])[1 + s.place % 3] AS region,
         'arn:aws:ec2:region:' || o.account_uid || ':instance/i-' || lpad(s.place::text, 19, '0') AS resource_uid
    FROM bench.organizations o, generate_series(0, :resources - 1) s (place)
   WHERE NOT o.spare ORDER BY o.number, s.place;
INSERT INTO resources (organization_id, resource_id, cloud_account_id, identity, resource_uid, scope_region, region,
                       display_name, type, service, labels, metadata_json, content_hash)
  SELECT organization_id, resource_id, cloud_account_id,
         sha256(convert_to(octet_length(resource_uid) || ',' || resource_uid || octet_length(region) || ',' || region,
                           'UTF8')),
         resource_uid, region, region, 'instance ' || place, 'AwsEc2Instance', 'ec2', ARRAY['env:prod', 'team:blue'],
         '{"text": "' || rpad('instance ' || place, 620, ' as it was described') || '"}', sha256(place::text::bytea)
    FROM bench.resources;

INSERT INTO scans (organization_id, scan_id, cloud_account_id, state, scanner, scanner_version, scan_time, extent,
                   services, regions, pair_count, fail_count, created_count, creator, request_id, end_time)
  SELECT organization_id, scan_id, cloud_account_id, 'COMPLETED', 'bench', '', now(), 'REPORTED', '{}', '{}', :checks * 3,
         :per_organization, :per_organization, 'service:bench', gen_random_uuid(), now()
    FROM bench.organizations WHERE NOT spare;
INSERT INTO account_coverage (organization_id, cloud_account_id, check_id, scope_region, scan_id, scan_time)
  SELECT organization_id, cloud_account_id, check_id, region, scan_id, now()
    FROM bench.organizations JOIN bench.checks USING (number, organization_id),
         unnest(ARRAY['us-east-1', 'eu-west-1', 'ap-northeast-1']) region;
INSERT INTO scan_results (organization_id, scan_id, check_ids, scope_regions, pass_counts, fail_counts, manual_counts)
  SELECT organization_id, scan_id, array_agg(check_id), array_agg(scope_region), array_agg(0), array_agg(1), array_agg(0)
    FROM account_coverage GROUP BY organization_id, scan_id;

-- Of twenty findings two are resolved, one is acknowledged, and one accepted.
INSERT INTO findings (organization_id, finding_id, cloud_account_id, resource_id, check_id, state_scan_id, seen_time,
                      resolve_time, accept_time, version, severity, muted, state, state_reason, status_detail, approver,
                      justification)
  SELECT r.organization_id, uuid_v7(), r.cloud_account_id, r.resource_id, c.check_id,
         CASE WHEN f.state IN ('OPEN', 'RESOLVED') THEN o.scan_id END, now(),
         CASE WHEN f.state = 'RESOLVED' THEN now() END, CASE WHEN f.state = 'ACCEPTED_RISK' THEN now() END,
         CASE WHEN f.state = 'OPEN' THEN 1 ELSE 2 END, c.severity, false, f.state,
         CASE f.state WHEN 'OPEN' THEN 'found' WHEN 'RESOLVED' THEN 'passed' ELSE 'as agreed' END,
         rpad('Instance ' || r.place, 87, ' is not as it should be'),
         CASE WHEN f.state = 'ACCEPTED_RISK' THEN 'service:bench' END,
         CASE WHEN f.state = 'ACCEPTED_RISK' THEN 'as agreed' END
    FROM (SELECT place, place % :resources AS resource,
                 (place % :resources * 4 + place / :resources) % :checks AS check_,
                 (ARRAY['RESOLVED', 'RESOLVED', 'ACKNOWLEDGED', 'ACCEPTED_RISK'])[1 + place % 20] AS changed
            FROM generate_series(0, :per_organization - 1) place) s
    CROSS JOIN LATERAL (SELECT coalesce(s.changed, 'OPEN') AS state) f
    JOIN bench.resources r ON r.place = s.resource
    JOIN bench.organizations o ON o.number = r.number
    JOIN bench.checks c ON c.number = r.number AND c.place = s.check_
   ORDER BY r.number, s.place;
INSERT INTO finding_events (organization_id, finding_id, event_time, version, scan_id, from_state, to_state, actor, reason)
  SELECT f.organization_id, f.finding_id, now(), 1, o.scan_id, NULL, 'OPEN', 'service:bench', 'found'
    FROM findings f JOIN bench.organizations o USING (organization_id);
INSERT INTO finding_events (organization_id, finding_id, event_time, version, scan_id, from_state, to_state, actor, reason)
  SELECT organization_id, finding_id, now(), 2, state_scan_id, 'OPEN', state, 'service:bench', state_reason
    FROM findings WHERE version = 2;

-- What pgbench asks for: fifty random findings a row, so that getting keys costs next to nothing, …
CREATE TABLE bench.finding_keys (number int PRIMARY KEY, organizations text[], slugs text[], findings text[]);
-- … and fifty places where a page other than the first begins.
CREATE TABLE bench.page_keys (number int PRIMARY KEY, organizations text[], slugs text[], severities text[],
                              findings text[]);
DO $$
DECLARE
  name regclass;
  columns text;
BEGIN
  FOREACH name IN ARRAY ARRAY['bench.finding_keys', 'bench.page_keys'] LOOP
    SELECT string_agg(format('ALTER %I SET STORAGE PLAIN', attname), ', ') INTO columns
      FROM pg_attribute WHERE attrelid = name AND attnum > 1;
    EXECUTE format('ALTER TABLE %s %s', name, columns);
  END LOOP;
END
$$;
INSERT INTO bench.finding_keys
  SELECT place / 50, array_agg(organization_id::text), array_agg(slug), array_agg(finding_id::text)
    FROM (SELECT organization_id, slug, finding_id, row_number() OVER (ORDER BY random()) - 1 AS place
            FROM findings JOIN bench.organizations USING (organization_id)) s
   GROUP BY place / 50 HAVING count(*) = 50;
INSERT INTO bench.page_keys
  SELECT place / 50, array_agg(organization_id::text), array_agg(slug), array_agg(severity::text),
         array_agg(finding_id::text)
    FROM (SELECT *, row_number() OVER (ORDER BY random()) - 1 AS place
            FROM (SELECT organization_id, slug, severity, finding_id,
                         row_number() OVER (PARTITION BY organization_id ORDER BY severity DESC, finding_id DESC) AS rank
                    FROM findings JOIN bench.organizations USING (organization_id)) s
           WHERE rank % 50 = 0 AND rank < :per_organization) s
   GROUP BY place / 50 HAVING count(*) = 50;

DROP TABLE bench.checks, bench.resources, bench.api_keys;
VACUUM (FREEZE, ANALYZE);
CHECKPOINT;
-- All of it in memory, as far as there is room.
CREATE EXTENSION pg_prewarm;
SELECT count(pg_prewarm(oid)) AS prewarmed FROM pg_class
 WHERE relkind IN ('r', 'i') AND relnamespace IN ('public'::regnamespace, 'bench'::regnamespace) \gset
