-- Fills a migrated database with organizations that have each had one scan, a real one's in its shape and the lengths
-- of its texts. Run by a superuser: triggers and foreign keys are off, and the rows are as they would have made them.
--
--   psql -v organizations=200 -v findings=1000000 -v spares=6 -f tests/bench/generate.sql <keys
--
-- `keys` has an API key a line, as bench-keys writes them: text, prefix, SHA-256; then a line `\.`; then agents' keys in
-- the same form, of 50 agents for each organization. The spare organizations come last and
-- have an account with nothing in it. Ids are made of numbers, so that clients need no list of them: finding F is one
-- of organization F / (findings / organizations).
\set ON_ERROR_STOP on
\set QUIET on
SET session_replication_role = replica;
SET work_mem = '256MB';
SET maintenance_work_mem = '512MB';

CREATE SCHEMA bench;
CREATE TABLE bench.api_keys (number bigint GENERATED ALWAYS AS IDENTITY (START 0 MINVALUE 0), key_text text,
                             key_prefix text, secret_sha256 text);
CREATE TABLE bench.agent_keys (LIKE bench.api_keys INCLUDING IDENTITY);
\copy bench.api_keys (key_text, key_prefix, secret_sha256) FROM pstdin WITH (DELIMITER ' ')
\copy bench.agent_keys (key_text, key_prefix, secret_sha256) FROM pstdin WITH (DELIMITER ' ')

-- A UUID of version 7. Kinds: 0 organization, 1 API key, 2 account, 3 check, 4 resource, 5 finding, 6 scan,
-- 7 agent, 8 agent's key.
CREATE FUNCTION bench.id(kind text, number bigint) RETURNS uuid
  LANGUAGE sql IMMUTABLE
AS $$ SELECT ('01900000-0000-700' || kind || '-8000-' || lpad(to_hex(number), 12, '0'))::uuid $$;
CREATE FUNCTION bench.slug(number bigint) RETURNS text
  LANGUAGE sql IMMUTABLE
AS $$ SELECT 'bench-' || number::text $$;
CREATE FUNCTION bench.region(number bigint) RETURNS text
  LANGUAGE sql IMMUTABLE
AS $$ SELECT CASE number % 3 WHEN 0 THEN 'us-east-1' WHEN 1 THEN 'eu-west-1' ELSE 'ap-northeast-1' END $$;

INSERT INTO organizations (organization_id, slug, display_name)
  SELECT bench.id('0', number), bench.slug(number), 'Bench ' || number FROM bench.api_keys;
INSERT INTO organization_slugs (slug, organization_id)
  SELECT bench.slug(number), bench.id('0', number) FROM bench.api_keys;
INSERT INTO api_keys (organization_id, api_key_id, key_prefix, secret_sha256, display_name, role, creator)
  SELECT bench.id('0', number), bench.id('1', number), key_prefix, decode(secret_sha256, 'hex'), 'bench', 2,
         'service:bench'
    FROM bench.api_keys;
INSERT INTO api_key_prefixes (key_prefix, organization_id, api_key_id)
  SELECT key_prefix, bench.id('0', number), bench.id('1', number) FROM bench.api_keys;
INSERT INTO cloud_accounts (organization_id, cloud_account_id, provider, account_uid, display_name, external_id,
                            last_scan_id)
  SELECT bench.id('0', number), bench.id('2', number), 'AWS', 100000000000 + number, 'bench', '',
         CASE WHEN number < :organizations THEN bench.id('6', number) END
    FROM bench.api_keys;

INSERT INTO agents (organization_id, agent_id, display_name, creator)
  SELECT bench.id('0', number / 50), bench.id('7', number), 'Bench ' || number, 'service:bench' FROM bench.agent_keys;
INSERT INTO agent_keys (organization_id, agent_id, agent_key_id, key_prefix, secret_sha256)
  SELECT bench.id('0', number / 50), bench.id('7', number), bench.id('8', number), key_prefix,
         decode(secret_sha256, 'hex')
    FROM bench.agent_keys;
INSERT INTO agent_key_prefixes (key_prefix, organization_id, agent_id, agent_key_id)
  SELECT key_prefix, bench.id('0', number / 50), bench.id('7', number), bench.id('8', number) FROM bench.agent_keys;

-- A scan's shape: 311 checks in 3 regions, four findings a resource.
\set checks 311
SELECT :findings / :organizations AS per_organization, (:findings / :organizations + 3) / 4 AS resources \gset

INSERT INTO checks (organization_id, check_id, provider, check_key, service, title, description, risk, remediation,
                    reference_urls, compliance_json, content_hash)
  SELECT bench.id('0', o), bench.id('3', o * :checks + c), 'AWS', service || '_resource_setting_' || c, service,
         rpad('Check ' || c, 64, ' looks at one of the settings'), rpad('**Check** ' || c, 217, prose),
         rpad('**Risk** ' || c, 297, prose), rpad('- Mend ' || c, 312, prose),
         ARRAY[rpad('https://docs.example.com/checks/' || c, 69, '/page')],
         '{"CIS-4.0.1": ["' || rpad('1.' || c, 400, '.1') || '"]}', sha256(c::text::bytea)
    FROM generate_series(0, :organizations - 1) o, generate_series(0, :checks - 1) c,
         LATERAL (SELECT (ARRAY['ec2', 's3', 'rds', 'lambda', 'eks', 'kms', 'sns', 'sqs'])[1 + c % 8] AS service,
                         ' shows that the resource is reachable in ways that nobody asked for;' AS prose) texts;

INSERT INTO resources (organization_id, resource_id, cloud_account_id, identity, resource_uid, scope_region, region,
                       display_name, type, service, labels, metadata_json, content_hash)
  SELECT bench.id('0', o), bench.id('4', o * :resources + r), bench.id('2', o),
         sha256(convert_to(octet_length(uid) || ',' || uid || octet_length(region) || ',' || region, 'UTF8')),
         uid, region, region, 'instance ' || r, 'AwsEc2Instance', 'ec2', ARRAY['env:prod', 'team:blue'],
         '{"text": "' || rpad('instance ' || r, 620, ' as it was described') || '"}', sha256(r::text::bytea)
    FROM generate_series(0, :organizations - 1) o, generate_series(0, :resources - 1) r,
         LATERAL (SELECT format('arn:aws:ec2:region:%s:instance/i-%s', 100000000000 + o, lpad(r::text, 17, '0')) AS uid,
                         bench.region(r) AS region) texts;

INSERT INTO scans (organization_id, scan_id, cloud_account_id, state, scanner, scanner_version, scan_time, extent,
                   services, regions, pair_count, fail_count, created_count, creator, request_id, end_time)
  SELECT bench.id('0', o), bench.id('6', o), bench.id('2', o), 'COMPLETED', 'bench', '', now(), 'REPORTED', '{}', '{}',
         :checks * 3, :per_organization, :per_organization, 'service:bench', gen_random_uuid(), now()
    FROM generate_series(0, :organizations - 1) o;

-- Of twenty findings two are resolved, one is acknowledged, and one accepted. `place` counts within an organization.
INSERT INTO findings (organization_id, finding_id, cloud_account_id, resource_id, check_id, state_scan_id, seen_time,
                      resolve_time, accept_time, version, severity, muted, state, state_reason, status_detail, approver,
                      justification)
  SELECT bench.id('0', o), bench.id('5', f), bench.id('2', o), bench.id('4', o * :resources + r),
         bench.id('3', o * :checks + c), CASE WHEN state IN ('OPEN', 'RESOLVED') THEN bench.id('6', o) END, now(),
         CASE WHEN state = 'RESOLVED' THEN now() END, CASE WHEN state = 'ACCEPTED_RISK' THEN now() END,
         CASE WHEN state = 'OPEN' THEN 1 ELSE 2 END,
         (ARRAY[3, 3, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 6])[1 + c * 7 % 16], false, state,
         CASE state WHEN 'OPEN' THEN 'found' WHEN 'RESOLVED' THEN 'passed' ELSE 'as agreed' END,
         rpad('Instance ' || r, 87, ' is not as it should be'),
         CASE WHEN state = 'ACCEPTED_RISK' THEN 'service:bench' END,
         CASE WHEN state = 'ACCEPTED_RISK' THEN 'as agreed' END
    FROM generate_series(0::bigint, :organizations * :per_organization - 1) f,
         LATERAL (SELECT f / :per_organization AS o, f % :per_organization AS place) organization,
         LATERAL (SELECT place % :resources AS r, (place % :resources * 4 + place / :resources) % :checks AS c,
                         coalesce((ARRAY['RESOLVED', 'RESOLVED', 'ACKNOWLEDGED', 'ACCEPTED_RISK'])[1 + place % 20],
                                  'OPEN') AS state) made;
INSERT INTO finding_events (organization_id, finding_id, event_time, version, scan_id, from_state, to_state, actor,
                            reason)
  SELECT bench.id('0', f / :per_organization), bench.id('5', f), now(), 1, bench.id('6', f / :per_organization), NULL,
         'OPEN', 'service:bench', 'found'
    FROM generate_series(0::bigint, :organizations * :per_organization - 1) f;
INSERT INTO finding_events (organization_id, finding_id, event_time, version, scan_id, from_state, to_state, actor,
                            reason)
  SELECT organization_id, finding_id, now(), 2, state_scan_id, 'OPEN', state, 'service:bench', state_reason
    FROM findings WHERE version = 2;

INSERT INTO account_coverage (organization_id, cloud_account_id, check_id, scope_region, scan_id, scan_time,
                              active_count)
  SELECT bench.id('0', o), bench.id('2', o), pair.check_id, pair.scope_region, bench.id('6', o), now(),
         coalesce(active.count, 0)
    FROM generate_series(0, :organizations - 1) o, generate_series(0, :checks - 1) c, generate_series(0, 2) region
   CROSS JOIN LATERAL (SELECT bench.id('0', o) AS organization_id, bench.id('3', o * :checks + c) AS check_id,
                              bench.region(region) COLLATE "C" AS scope_region) pair
    LEFT JOIN (SELECT organization_id, f.check_id, r.scope_region, count(*)
                 FROM findings f JOIN resources r USING (organization_id, resource_id)
                WHERE f.state <> 'RESOLVED' GROUP BY 1, 2, 3) active USING (organization_id, check_id, scope_region);
INSERT INTO scan_results (organization_id, scan_id, check_ids, scope_regions, pass_counts, fail_counts, manual_counts)
  SELECT organization_id, scan_id, array_agg(check_id), array_agg(scope_region), array_agg(0), array_agg(active_count),
         array_agg(0)
    FROM account_coverage GROUP BY organization_id, scan_id;

-- But for what is empty: PostgreSQL takes a table that it has found empty for one that stays so, and would keep plans that
-- read all of it; of one that it does not know it makes no such plans.
SELECT format('VACUUM (FREEZE, ANALYZE) %s', oid::regclass)
  FROM pg_class
 WHERE relkind = 'r' AND relnamespace IN ('public'::regnamespace, 'bench'::regnamespace) AND pg_relation_size(oid) > 0 \gexec
CHECKPOINT;
-- All of it in memory, as far as there is room.
CREATE EXTENSION pg_prewarm;
SELECT count(pg_prewarm(oid)) AS prewarmed
  FROM pg_class WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace \gset
