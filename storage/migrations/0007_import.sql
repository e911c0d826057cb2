-- Imports: a scan's results come in, wait in import_batches, and take effect all at once.

-- Starts an import, or goes on with the one that the same request id started. `new_scan_id` is the scan's id, if there
-- is to be a new one. No row: no such account.
CREATE FUNCTION start_import(
    organization_id uuid, organization_slug text, cloud_account_id uuid, new_scan_id uuid, caller_id text,
    scanner text, scanner_version text, scan_time timestamptz, request_id uuid, extent text, services text[],
    regions text[],
    OUT refusal text, OUT scan text, OUT scan_id uuid, OUT next_record bigint, OUT account_uid text, OUT provider text)
  RETURNS SETOF record
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  running scans;
BEGIN
  -- The lock makes imports of one account start one after the other.
  SELECT a.account_uid, a.provider INTO account_uid, provider FROM cloud_accounts a
   WHERE a.organization_id = $1 AND a.cloud_account_id = $3 FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT s.* INTO running FROM scans s
   WHERE s.organization_id = $1 AND s.cloud_account_id = $3 AND s.state = 'RUNNING';
  IF running.request_id = $9 THEN
    scan_id := running.scan_id;
    INSERT INTO import_runs AS r (organization_id, scan_id, lease_time)
      VALUES ($1, running.scan_id, now() + interval '30 seconds')
      ON CONFLICT (organization_id, scan_id) DO UPDATE SET lease_time = excluded.lease_time
      RETURNING r.next_record INTO next_record;
  ELSIF EXISTS (SELECT FROM import_runs r
                 WHERE r.organization_id = $1 AND r.scan_id = running.scan_id AND r.lease_time > now()) THEN
    refusal := 'SCAN_RUNNING';
  ELSE
    PERFORM fail_scan($1, running.scan_id, 'abandoned');
    scan_id := new_scan_id;
    next_record := 1;
    INSERT INTO scans (organization_id, scan_id, cloud_account_id, scanner, scanner_version, scan_time, extent,
                       services, regions, creator, request_id)
      VALUES ($1, new_scan_id, $3, scanner, scanner_version, scan_time,
              coalesce(nullif(nullif(extent, ''), 'EXTENT_UNSPECIFIED'), 'REPORTED'),
              coalesce(services, '{}'), coalesce(regions, '{}'), caller_id, $9);
    INSERT INTO import_runs (organization_id, scan_id, lease_time)
      VALUES ($1, new_scan_id, now() + interval '30 seconds');
  END IF;
  scan := 'organizations/' || organization_slug || '/scans/' || coalesce(scan_id, running.scan_id);
  RETURN NEXT;
END
$$;

-- Gives a RUNNING scan up: it has changed nothing, and what came in is dropped.
CREATE FUNCTION fail_scan(organization_id uuid, scan_id uuid, failure text) RETURNS void
  LANGUAGE sql
AS $$
  UPDATE scans s SET state = 'FAILED', failure = $3, end_time = now()
   WHERE s.organization_id = $1 AND s.scan_id = $2 AND s.state = 'RUNNING';
  DELETE FROM import_runs r WHERE r.organization_id = $1 AND r.scan_id = $2;
$$;

-- Writes the checks that a scan describes, where they are new or described differently from before.
CREATE FUNCTION import_checks(organization_id uuid, scan_id uuid, provider text) RETURNS void
  LANGUAGE sql SET enable_nestloop = off SET jit = off
AS $$
  WITH description AS MATERIALIZED (
    SELECT unnest(b.check_keys) AS check_key, unnest(b.check_services) AS service, unnest(b.check_titles) AS title,
           unnest(b.check_descriptions) AS description, unnest(b.check_risks) AS risk,
           unnest(b.check_remediations) AS remediation, unnest(b.check_reference_urls) AS reference_urls,
           unnest(b.check_compliance) AS compliance_json
      FROM import_batches b WHERE b.organization_id = $1 AND b.scan_id = $2
  ), described AS MATERIALIZED (
    -- Described twice: the one with most to say about compliance, then an arbitrary one, always the same.
    SELECT DISTINCT ON (check_key) d.*, sha256(convert_to(to_jsonb(d)::text, 'UTF8')) AS content_hash
      FROM description d
     ORDER BY check_key, length(compliance_json) DESC, title, description, risk, remediation, compliance_json, service,
              reference_urls
  ), changed AS (
    UPDATE checks c
       SET service = d.service, title = d.title, description = d.description, risk = d.risk,
           remediation = d.remediation, reference_urls = ARRAY(SELECT jsonb_array_elements_text(d.reference_urls)),
           compliance_json = d.compliance_json, content_hash = d.content_hash, update_time = now()
      FROM described d
     WHERE c.organization_id = $1 AND c.provider = $3 AND c.check_key = d.check_key
       AND c.content_hash <> d.content_hash
  )
  INSERT INTO checks (organization_id, check_id, provider, check_key, service, title, description, risk, remediation,
                      reference_urls, compliance_json, content_hash)
    SELECT $1, uuid_v7(), $3, check_key, service, title, description, risk, remediation,
           ARRAY(SELECT jsonb_array_elements_text(reference_urls)), compliance_json, content_hash
      FROM described d
     WHERE NOT EXISTS (SELECT FROM checks c
                        WHERE c.organization_id = $1 AND c.provider = $3 AND c.check_key = d.check_key)
     ORDER BY check_key
  -- Another account's scan may bring the check at the same time; the order keeps the two from a deadlock.
  ON CONFLICT (organization_id, provider, check_key) DO NOTHING
$$;

-- Compares a scan's results with what is known of its account and writes what differs; counts go into `counted`.
--
-- Results come by (check, region) pair. A pair whose results are what the last scan found there is done with: no
-- finding of it can have changed, since only scans find and resolve. In the other pairs, a result and a finding are of
-- one identity where resource, check and ordinal agree: the ordinal tells several records of one check on one resource
-- apart, by resource name and status detail. All joins are by hash, whatever the planner takes the scan for.
CREATE FUNCTION import_results(scan scans, account_provider text, OUT counted scans)
  LANGUAGE plpgsql
  SET enable_nestloop = off SET enable_mergejoin = off SET jit = off SET work_mem = '64MB'
AS $$
BEGIN
  counted := scan;
  WITH batch_pair AS MATERIALIZED (
    SELECT p.*, CASE WHEN g.service IS NULL THEN p.region ELSE '' END AS scope_region
      FROM (SELECT b.first_record, unnest(b.pair_checks) AS check_key, unnest(b.pair_services) AS service,
                   unnest(b.pair_regions) AS region, unnest(b.pair_pass_counts) AS pass,
                   unnest(b.pair_fail_counts) AS fail, unnest(b.pair_manual_counts) AS manual,
                   unnest(b.pair_muted_counts) AS muted, unnest(b.pair_digests_high) AS digest_high,
                   unnest(b.pair_digests_low) AS digest_low
              FROM import_batches b
             WHERE b.organization_id = scan.organization_id AND b.scan_id = scan.scan_id) p
      LEFT JOIN global_services g ON g.provider = account_provider AND g.service = p.service
  ), reported AS MATERIALIZED (
    SELECT check_key, scope_region, min(service) AS service, sum(pass)::int AS pass, sum(fail)::int AS fail,
           sum(manual)::int AS manual, sum(muted)::int AS muted, sum(digest_high)::bigint AS digest_high,
           sum(digest_low)::bigint AS digest_low
      FROM batch_pair GROUP BY check_key, scope_region
  ), new_check AS (
    -- Those that nobody describes: known by their key alone. Another account's scan may bring one at the same time.
    INSERT INTO checks AS c (organization_id, check_id, provider, check_key, service)
      SELECT scan.organization_id, uuid_v7(), account_provider, r.check_key, min(r.service)
        FROM reported r
       WHERE NOT EXISTS (SELECT FROM checks c WHERE c.organization_id = scan.organization_id
                            AND c.provider = account_provider AND c.check_key = r.check_key)
       GROUP BY r.check_key ORDER BY r.check_key
    ON CONFLICT (organization_id, provider, check_key) DO UPDATE SET service = c.service
    RETURNING check_id, check_key, service
  ), check_id AS MATERIALIZED (
    SELECT check_id, check_key, service FROM checks
     WHERE organization_id = scan.organization_id AND provider = account_provider
    UNION ALL
    SELECT check_id, check_key, service FROM new_check
  ), covered AS (
    SELECT * FROM account_coverage
     WHERE organization_id = scan.organization_id AND cloud_account_id = scan.cloud_account_id
  ), known_pair AS MATERIALIZED (
    -- The pairs that the scan reports or the account has.
    SELECT check_id, scope_region, c.check_key, r.check_key IS NOT NULL AS reported, v.scan_id IS NOT NULL AS known,
           r.pass, r.fail, r.manual, r.muted, r.digest_high, r.digest_low, v.scan_time AS covered_time, v.active_count,
           r.digest_high = v.digest_high AND r.digest_low = v.digest_low AS same,
           NOT scan.partial AND CASE scan.extent
             WHEN 'REPORTED' THEN r.check_key IS NOT NULL
             WHEN 'LISTED' THEN (scan.services = '{}' OR c.service = ANY (scan.services))
                            AND (scan.regions = '{}' OR scope_region = '' OR scope_region = ANY (scan.regions))
             ELSE true
           END AS covered
      FROM (SELECT check_id, r.* FROM reported r JOIN check_id USING (check_key)) r
      FULL JOIN covered v USING (check_id, scope_region)
      JOIN check_id c USING (check_id)
  ), pair AS MATERIALIZED (
    SELECT *, CASE WHEN reported THEN same IS NOT TRUE ELSE covered AND active_count > 0 END AS examined
      FROM known_pair

  -- The results of the pairs that need a closer look. Resources that are not known yet get their ids.
  ), record AS MATERIALIZED (
    SELECT b.first_record, generate_subscripts(b.checks, 1) AS position, unnest(b.checks) AS check_key,
           unnest(b.services) AS service, unnest(b.resource_uids) AS resource_uid, unnest(b.regions) AS region,
           unnest(b.resource_names) AS resource_name, unnest(b.statuses) AS status, unnest(b.severities) AS severity,
           unnest(b.status_details) AS status_detail, unnest(b.muted) AS muted
      FROM import_batches b
     WHERE b.organization_id = scan.organization_id AND b.scan_id = scan.scan_id
       AND b.first_record IN (SELECT p.first_record FROM batch_pair p JOIN pair x USING (check_key, scope_region)
                               WHERE x.examined)
  ), known_resource AS MATERIALIZED (
    SELECT r.resource_id, r.resource_uid, r.scope_region, r.content_hash
      FROM resources r
     WHERE r.organization_id = scan.organization_id AND r.cloud_account_id = scan.cloud_account_id
  ), placed AS MATERIALIZED (
    SELECT e.*, x.check_id, x.scope_region, r.resource_id
      FROM record e
      LEFT JOIN global_services g ON g.provider = account_provider AND g.service = e.service
      JOIN pair x ON x.check_key = e.check_key
       AND x.scope_region = CASE WHEN g.service IS NULL THEN e.region ELSE '' END AND x.examined
      LEFT JOIN known_resource r ON r.resource_uid = e.resource_uid AND r.scope_region = x.scope_region
  ), new_resource AS MATERIALIZED (
    SELECT uuid_v7() AS resource_id, resource_uid, scope_region, min(region) AS region
      FROM placed WHERE resource_id IS NULL GROUP BY resource_uid, scope_region

  -- Resources: written where they are new or described differently from before.
  ), description AS MATERIALIZED (
    SELECT b.first_record, generate_subscripts(b.described_uids, 1) AS position,
           unnest(b.described_uids) AS resource_uid, unnest(b.described_regions) AS region,
           unnest(b.described_names) AS display_name, unnest(b.described_lengths) AS length,
           unnest(b.described_hashes) AS content_hash
      FROM import_batches b
     WHERE b.organization_id = scan.organization_id AND b.scan_id = scan.scan_id
  ), chosen AS (
    -- Described twice: the one with the longest metadata, then the one with the smallest name, so that the order in the
    -- file decides nothing.
    SELECT DISTINCT ON (r.resource_id) r.resource_id, r.content_hash AS known_hash, d.content_hash, d.first_record,
           d.position
      FROM (SELECT resource_id, resource_uid, scope_region, content_hash FROM known_resource
            UNION ALL
            SELECT resource_id, resource_uid, scope_region, NULL FROM new_resource) r
      JOIN description d ON d.resource_uid = r.resource_uid AND r.scope_region IN ('', d.region)
     ORDER BY r.resource_id, d.length DESC, d.display_name, d.content_hash
  ), redescribed AS MATERIALIZED (
    SELECT * FROM chosen WHERE content_hash IS DISTINCT FROM known_hash
  ), content AS MATERIALIZED (
    SELECT r.resource_id, r.content_hash, d.*
      FROM (SELECT b.first_record, generate_subscripts(b.described_uids, 1) AS position,
                   unnest(b.described_names) AS display_name, unnest(b.described_types) AS type,
                   unnest(b.described_services) AS service, unnest(b.described_labels) AS labels,
                   unnest(b.described_metadata) AS metadata_json
              FROM import_batches b
             WHERE b.organization_id = scan.organization_id AND b.scan_id = scan.scan_id
               AND b.first_record IN (SELECT first_record FROM redescribed)) d
      JOIN redescribed r USING (first_record, position)
  ), changed_resource AS (
    UPDATE resources r
       SET display_name = d.display_name, type = d.type, service = d.service,
           labels = ARRAY(SELECT jsonb_array_elements_text(d.labels)), metadata_json = d.metadata_json,
           content_hash = d.content_hash, update_time = now()
      FROM content d
     WHERE r.organization_id = scan.organization_id AND r.cloud_account_id = scan.cloud_account_id
       AND r.resource_id = d.resource_id
  ), created_resource AS (
    INSERT INTO resources (organization_id, resource_id, cloud_account_id, identity, resource_uid, scope_region, region,
                           display_name, type, service, labels, metadata_json, content_hash)
      SELECT scan.organization_id, n.resource_id, scan.cloud_account_id,
             sha256(convert_to(octet_length(n.resource_uid) || ',' || n.resource_uid || octet_length(n.scope_region) ||
                               ',' || n.scope_region, 'UTF8')),
             n.resource_uid, n.scope_region, n.region, coalesce(d.display_name, ''), coalesce(d.type, ''),
             coalesce(d.service, ''), ARRAY(SELECT jsonb_array_elements_text(d.labels)),
             coalesce(d.metadata_json, ''), coalesce(d.content_hash, '')
        FROM new_resource n LEFT JOIN content d USING (resource_id)

  -- Results and findings, side by side.
  ), seen AS (
    SELECT resource_id, check_id, scope_region, status, severity, muted, status_detail,
           (row_number() OVER (PARTITION BY resource_id, check_id
                               ORDER BY resource_name, status_detail, first_record, position) - 1)::int AS ordinal
      FROM (SELECT coalesce(p.resource_id, r.resource_id) AS resource_id, p.check_id, p.scope_region, p.status,
                   p.severity, p.muted, p.status_detail, p.resource_name, p.first_record, p.position
              FROM placed p
              LEFT JOIN new_resource r USING (resource_uid, scope_region)) result
  ), known AS (
    SELECT f.finding_id, f.resource_id, f.check_id, f.ordinal, f.state <> 'RESOLVED' AS active, f.severity, f.muted,
           f.status_detail, x.scope_region, x.covered, x.covered_time
      FROM findings f
      JOIN known_resource r USING (resource_id)
      JOIN pair x ON x.check_id = f.check_id AND x.scope_region = r.scope_region AND x.examined
     WHERE f.organization_id = scan.organization_id AND f.cloud_account_id = scan.cloud_account_id
  ), judged AS MATERIALIZED (
    SELECT resource_id, check_id, ordinal, coalesce(s.scope_region, k.scope_region) AS scope_region, s.severity,
           s.muted, s.status_detail, k.finding_id, k.covered_time,
           CASE WHEN k.finding_id IS NULL THEN 'created'
                WHEN NOT k.active THEN 'regressed'
                WHEN s.status IS NULL THEN CASE WHEN k.covered THEN 'unreported' ELSE 'unseen' END
                WHEN s.status = 1 THEN 'passed'
                ELSE 'unchanged'
           END AS verdict,
           s.status = 2 AND k.finding_id IS NOT NULL
             AND (s.severity <> k.severity OR s.muted <> k.muted OR s.status_detail <> k.status_detail) AS redescribed,
           s.status = 2 AS fails
      FROM seen s FULL JOIN known k USING (resource_id, check_id, ordinal)
     WHERE CASE WHEN k.active THEN true ELSE s.status = 2 END
  ), judged_pair AS MATERIALIZED (
    -- Of an unseen finding, account_coverage can say no more when it was last seen, nor of the others in its pair.
    SELECT check_id, scope_region, bool_or(verdict = 'unseen') AS unseen,
           count(*) FILTER (WHERE verdict NOT IN ('passed', 'unreported'))::int AS active_count
      FROM judged GROUP BY check_id, scope_region

  -- What the scan changes.
  ), change AS MATERIALIZED (
    SELECT j.finding_id, j.verdict, j.verdict IN ('passed', 'unreported') AS resolves, j.fails, j.severity, j.muted,
           j.status_detail, j.covered_time
      FROM judged j JOIN judged_pair p USING (check_id, scope_region)
     WHERE j.verdict IN ('passed', 'unreported', 'regressed')
        OR j.verdict = 'unchanged' AND (j.redescribed OR p.unseen)
  ), changed AS (
    UPDATE findings f
       SET state = CASE WHEN c.resolves THEN 'RESOLVED'
                        WHEN c.verdict = 'unchanged' THEN f.state
                        WHEN f.accept_time IS NOT NULL AND NOT acceptance_expired(f) THEN 'ACCEPTED_RISK'
                        ELSE 'OPEN' END,
           state_reason = CASE c.verdict WHEN 'passed' THEN 'passed' WHEN 'unreported' THEN 'not reported'
                                         WHEN 'regressed' THEN 'found again' ELSE f.state_reason END,
           state_scan_id = CASE WHEN c.verdict = 'unchanged' THEN f.state_scan_id ELSE scan.scan_id END,
           resolve_time = CASE WHEN c.resolves THEN now() END,
           regression_count = f.regression_count + (c.verdict = 'regressed')::int,
           seen_time = greatest(f.seen_time, CASE WHEN c.resolves THEN c.covered_time ELSE scan.scan_time END),
           severity = CASE WHEN c.fails THEN c.severity ELSE f.severity END,
           muted = CASE WHEN c.fails THEN c.muted ELSE f.muted END,
           status_detail = CASE WHEN c.fails THEN c.status_detail ELSE f.status_detail END
      FROM change c
     WHERE f.organization_id = scan.organization_id AND f.cloud_account_id = scan.cloud_account_id
       AND f.finding_id = c.finding_id
  ), created AS (
    INSERT INTO findings (organization_id, finding_id, cloud_account_id, resource_id, check_id, state_scan_id,
                          seen_time, ordinal, severity, muted, state_reason, status_detail)
      SELECT scan.organization_id, uuid_v7(), scan.cloud_account_id, resource_id, check_id, scan.scan_id,
             scan.scan_time, ordinal, severity, muted, 'found', status_detail
        FROM judged WHERE verdict = 'created'

  -- What the scan leaves, also when nothing has changed: its coverage and its counts.
  ), outcome AS MATERIALIZED (
    SELECT p.*, coalesce(j.unseen, false) AS unseen, p.reported AND NOT coalesce(j.unseen, false) AS moves,
           CASE WHEN p.examined THEN coalesce(j.active_count, 0) ELSE p.active_count END AS active_after
      FROM pair p LEFT JOIN judged_pair j USING (check_id, scope_region)
     WHERE p.reported OR p.examined
  ), moved_coverage AS (
    UPDATE account_coverage v
       SET scan_id = CASE WHEN p.moves THEN scan.scan_id ELSE v.scan_id END,
           scan_time = CASE WHEN p.moves THEN greatest(v.scan_time, scan.scan_time) ELSE v.scan_time END,
           active_count = p.active_after,
           digest_high = CASE WHEN p.moves THEN p.digest_high END,
           digest_low = CASE WHEN p.moves THEN p.digest_low END
      FROM outcome p
     WHERE v.organization_id = scan.organization_id AND v.cloud_account_id = scan.cloud_account_id
       AND v.check_id = p.check_id AND v.scope_region = p.scope_region
  ), new_coverage AS (
    INSERT INTO account_coverage
      SELECT scan.organization_id, scan.cloud_account_id, check_id, scope_region, scan.scan_id, scan.scan_time,
             active_after, digest_high, digest_low
        FROM outcome WHERE NOT known
  ), scan_result AS (
    INSERT INTO scan_results
      SELECT scan.organization_id, scan.scan_id, coalesce(array_agg(check_id), '{}'),
             coalesce(array_agg(scope_region), '{}'), coalesce(array_agg(pass), '{}'), coalesce(array_agg(fail), '{}'),
             coalesce(array_agg(manual), '{}')
        FROM (SELECT * FROM pair WHERE reported ORDER BY check_id, scope_region) p
  ), results AS (
    SELECT count(*) AS pair_count, coalesce(sum(pass), 0) AS pass, coalesce(sum(fail), 0) AS fail,
           coalesce(sum(manual), 0) AS manual, coalesce(sum(muted), 0) AS muted,
           coalesce(sum(active_count) FILTER (WHERE NOT examined), 0) AS unchanged
      FROM pair WHERE reported
  ), verdicts AS (
    SELECT count(*) FILTER (WHERE verdict = 'created') AS created,
           count(*) FILTER (WHERE verdict = 'unchanged') AS unchanged,
           count(*) FILTER (WHERE verdict = 'passed') AS passed,
           count(*) FILTER (WHERE verdict = 'unreported') AS unreported,
           count(*) FILTER (WHERE verdict = 'regressed') AS regressed
      FROM judged
  )
  SELECT r.pair_count, r.pass, r.fail, r.manual, r.muted, v.created, r.unchanged + v.unchanged, v.passed, v.unreported,
         v.regressed
    INTO counted.pair_count, counted.pass_count, counted.fail_count, counted.manual_count, counted.muted_count,
         counted.created_count, counted.unchanged_count, counted.passed_count, counted.unreported_count,
         counted.regressed_count
    FROM results r, verdicts v;
END
$$;

-- Ends an import: all its results take effect. `record_count` is how many records the caller has sent; `interrupted`,
-- whether the source was cut before its end. The scan as it is then, or a refusal.
CREATE FUNCTION complete_scan(
    organization_id uuid, scan_id uuid, record_count bigint, interrupted boolean,
    OUT refusal text, OUT refusal_next_record text, OUT scan scans)
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  next_record bigint;
  refused bigint;
  provider text;
BEGIN
  -- Account, scan, run: everybody locks them in this order. The server of an import may be gone while its statement still
  -- runs, and the next import begins.
  SELECT a.provider INTO provider
    FROM scans s JOIN cloud_accounts a USING (organization_id, cloud_account_id)
   WHERE s.organization_id = $1 AND s.scan_id = $2 FOR NO KEY UPDATE OF a;
  SELECT s.* INTO scan FROM scans s WHERE s.organization_id = $1 AND s.scan_id = $2 FOR NO KEY UPDATE;
  SELECT r.next_record INTO next_record FROM import_runs r
   WHERE r.organization_id = $1 AND r.scan_id = $2 FOR UPDATE;
  IF NOT FOUND THEN
    scan := NULL;
    refusal := 'SCAN_NOT_RUNNING';
    RETURN;
  ELSIF next_record <> $3 + 1 THEN
    scan := NULL;
    refusal := 'IMPORT_INCOMPLETE';
    refusal_next_record := next_record;
    RETURN;
  END IF;
  SELECT coalesce(sum(b.refused_count), 0) INTO refused
    FROM import_batches b WHERE b.organization_id = $1 AND b.scan_id = $2;
  scan.refused_count := refused;
  scan.partial := $4 OR refused > 0;
  PERFORM import_checks($1, $2, provider);
  scan := import_results(scan, provider);
  UPDATE scans s
     SET state = 'COMPLETED', end_time = now(), partial = scan.partial, refused_count = scan.refused_count,
         pair_count = scan.pair_count, pass_count = scan.pass_count, fail_count = scan.fail_count,
         manual_count = scan.manual_count, muted_count = scan.muted_count, created_count = scan.created_count,
         unchanged_count = scan.unchanged_count, passed_count = scan.passed_count,
         unreported_count = scan.unreported_count, regressed_count = scan.regressed_count
   WHERE s.organization_id = $1 AND s.scan_id = $2
  RETURNING s.* INTO scan;
  UPDATE cloud_accounts a SET last_scan_id = $2
   WHERE a.organization_id = $1 AND a.cloud_account_id = scan.cloud_account_id;
  DELETE FROM import_runs r WHERE r.organization_id = $1 AND r.scan_id = $2;
END
$$;
