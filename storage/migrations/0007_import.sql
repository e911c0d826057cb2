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

-- The region as far as it tells resources apart: empty for a global service.
CREATE FUNCTION scope_region(provider text, service text, region text) RETURNS text
  LANGUAGE sql STABLE
AS $$
  SELECT CASE WHEN EXISTS (SELECT FROM global_services g WHERE g.provider = $1 AND g.service = $2) THEN '' ELSE $3 END
$$;

-- Writes the checks that a scan describes or reports, where they are new or described differently from before.
CREATE FUNCTION import_checks(organization_id uuid, scan_id uuid, provider text) RETURNS void
  LANGUAGE sql SET enable_nestloop = off SET jit = off
AS $$
  WITH described AS (
    -- Described twice: the one with most to say about compliance, then an arbitrary one, always the same.
    SELECT DISTINCT ON (d.check_key) d.*,
           ARRAY(SELECT jsonb_array_elements_text(d.urls)) AS reference_urls
      FROM import_batches b,
           unnest(b.check_keys, b.check_services, b.check_titles, b.check_descriptions, b.check_risks,
                  b.check_remediations, b.check_reference_urls, b.check_compliance)
             AS d (check_key, service, title, description, risk, remediation, urls, compliance_json)
     WHERE b.organization_id = $1 AND b.scan_id = $2
     ORDER BY d.check_key, length(d.compliance_json) DESC, d.title, d.description, d.risk, d.remediation,
              d.compliance_json, d.urls
  ), reported AS (
    SELECT e.check_key, min(e.service) AS service
      FROM import_batches b, unnest(b.checks, b.services) AS e (check_key, service)
     WHERE b.organization_id = $1 AND b.scan_id = $2
     GROUP BY e.check_key
  ), now_known AS MATERIALIZED (
    SELECT check_key, coalesce(nullif(d.service, ''), r.service, '') AS service, d.title, d.description, d.risk,
           d.remediation, d.reference_urls, d.compliance_json,
           CASE WHEN d.title IS NOT NULL THEN
             sha256(convert_to(jsonb_build_array(d.service, r.service, d.title, d.description, d.risk, d.remediation,
                                                 d.reference_urls, d.compliance_json)::text, 'UTF8')) END AS content_hash
      FROM described d FULL JOIN reported r USING (check_key)
  ), changed AS (
    UPDATE checks c
       SET service = n.service, title = n.title, description = n.description, risk = n.risk,
           remediation = n.remediation, reference_urls = n.reference_urls, compliance_json = n.compliance_json,
           content_hash = n.content_hash, update_time = now()
      FROM now_known n
     WHERE c.organization_id = $1 AND c.provider = $3 AND c.check_key = n.check_key AND c.content_hash <> n.content_hash
  )
  INSERT INTO checks (organization_id, check_id, provider, check_key, service, title, description, risk, remediation,
                      reference_urls, compliance_json, content_hash)
    SELECT $1, uuid_v7(), $3, check_key, service, coalesce(title, ''), coalesce(description, ''), coalesce(risk, ''),
           coalesce(remediation, ''), coalesce(reference_urls, '{}'), coalesce(compliance_json, ''),
           coalesce(content_hash, '')
      FROM now_known n
     WHERE NOT EXISTS (SELECT FROM checks c
                        WHERE c.organization_id = $1 AND c.provider = $3 AND c.check_key = n.check_key)
     ORDER BY check_key
  -- Another account's scan may bring the check at the same time; the order keeps the two from a deadlock.
  ON CONFLICT (organization_id, provider, check_key) DO NOTHING
$$;

-- Writes the resources that a scan reports, where they are new or described differently from before.
CREATE FUNCTION import_resources(organization_id uuid, scan_id uuid, cloud_account_id uuid, provider text) RETURNS void
  LANGUAGE sql SET enable_nestloop = off SET jit = off SET work_mem = '64MB'
AS $$
  WITH reported AS MATERIALIZED (
    SELECT e.resource_uid, CASE WHEN g.service IS NULL THEN e.region ELSE '' END AS scope_region,
           min(e.region) AS region
      FROM (SELECT e.* FROM import_batches b,
                   unnest(b.resource_uids, b.regions, b.services) AS e (resource_uid, region, service)
             WHERE b.organization_id = $1 AND b.scan_id = $2
            OFFSET 0) e
      LEFT JOIN global_services g ON g.provider = $4 AND g.service = e.service
     GROUP BY 1, 2
  ), description AS MATERIALIZED (
    SELECT d.*,
           -- The length goes before each: no two descriptions read the same.
           sha256(convert_to(concat_ws(',', length(d.display_name), d.display_name, length(d.type), d.type,
                    length(d.service), d.service, length(d.labels::text), d.labels, d.metadata_json), 'UTF8'))
             AS content_hash
      FROM import_batches b,
           unnest(b.described_uids, b.described_regions, b.described_names, b.described_types, b.described_services,
                  b.described_labels, b.described_metadata)
             AS d (resource_uid, region, display_name, type, service, labels, metadata_json)
     WHERE b.organization_id = $1 AND b.scan_id = $2
  ), now_known AS MATERIALIZED (
    -- Described twice: the one with the longest metadata, then the one with the smallest name, so that the order in the
    -- file decides nothing.
    SELECT DISTINCT ON (r.resource_uid, r.scope_region) r.resource_uid, r.scope_region, r.region, d.display_name,
           d.type, d.service, d.labels, d.metadata_json, d.content_hash
      FROM reported r
      LEFT JOIN description d ON d.resource_uid = r.resource_uid AND r.scope_region IN ('', d.region)
     ORDER BY r.resource_uid, r.scope_region, length(d.metadata_json) DESC NULLS LAST,
              d.display_name, d.content_hash
  ), known AS MATERIALIZED (
    SELECT r.resource_id, r.resource_uid, r.scope_region, r.content_hash
      FROM resources r WHERE r.organization_id = $1 AND r.cloud_account_id = $3
  ), compared AS MATERIALIZED (
    SELECT n.*, k.resource_id
      FROM now_known n LEFT JOIN known k USING (resource_uid, scope_region)
     WHERE k.resource_id IS NULL OR k.content_hash <> n.content_hash
  ), changed AS (
    UPDATE resources r
       SET display_name = c.display_name, type = c.type, service = c.service,
           labels = ARRAY(SELECT jsonb_array_elements_text(c.labels)), metadata_json = c.metadata_json,
           content_hash = c.content_hash, update_time = now()
      FROM compared c
     WHERE r.organization_id = $1 AND r.cloud_account_id = $3 AND r.resource_id = c.resource_id
  )
  INSERT INTO resources (organization_id, resource_id, cloud_account_id, identity, resource_uid, scope_region, region,
                         display_name, type, service, labels, metadata_json, content_hash)
    SELECT $1, uuid_v7(), $3,
           sha256(convert_to(octet_length(resource_uid) || ',' || resource_uid || octet_length(scope_region) || ',' ||
                             scope_region, 'UTF8')),
           resource_uid, scope_region, region, coalesce(display_name, ''), coalesce(type, ''), coalesce(service, ''),
           ARRAY(SELECT jsonb_array_elements_text(labels)), coalesce(metadata_json, ''), coalesce(content_hash, '')
      FROM compared WHERE resource_id IS NULL
$$;

-- Compares a scan's results with the findings of its account and writes what differs; counts go into `counted`.
--
-- A result and a finding are of one identity where resource, check and ordinal agree: the ordinal tells several records
-- of one check on one resource apart, by resource name and status detail.
CREATE FUNCTION import_findings(scan scans, provider text, OUT counted scans)
  LANGUAGE plpgsql SET enable_nestloop = off SET jit = off SET work_mem = '64MB'
AS $$
BEGIN
  counted := scan;
  WITH record AS MATERIALIZED (
    SELECT b.first_record, e.*
      FROM import_batches b,
           unnest(b.checks, b.services, b.resource_uids, b.regions, b.resource_names, b.statuses, b.severities,
                  b.status_details, b.muted) WITH ORDINALITY
             AS e (check_key, service, resource_uid, region, resource_name, status, severity, status_detail, muted,
                   position)
     WHERE b.organization_id = scan.organization_id AND b.scan_id = scan.scan_id
  ), result AS MATERIALIZED (
    SELECT e.first_record, e.position, c.check_id, r.resource_id, r.scope_region, e.resource_name, e.status, e.severity,
           e.status_detail, e.muted
      FROM record e
      LEFT JOIN global_services g ON g.provider = import_findings.provider AND g.service = e.service
      JOIN checks c ON c.organization_id = scan.organization_id AND c.provider = import_findings.provider
       AND c.check_key = e.check_key
      JOIN resources r ON r.organization_id = scan.organization_id AND r.cloud_account_id = scan.cloud_account_id
       AND r.resource_uid = e.resource_uid AND r.scope_region = CASE WHEN g.service IS NULL THEN e.region ELSE '' END
  ), repeated AS (
    SELECT check_id, resource_id FROM result GROUP BY check_id, resource_id HAVING count(*) > 1
  ), ranked AS (
    SELECT first_record, position,
           row_number() OVER (PARTITION BY check_id, resource_id
                              ORDER BY resource_name, status_detail, first_record, position) - 1
             AS ordinal
      FROM result JOIN repeated USING (check_id, resource_id)
  ), seen AS (
    SELECT result.*, coalesce(ranked.ordinal, 0)::int AS ordinal
      FROM result LEFT JOIN ranked USING (first_record, position)
  ), pair AS MATERIALIZED (
    SELECT check_id, scope_region, count(*) FILTER (WHERE status = 1) AS pass, count(*) FILTER (WHERE status = 2) AS fail,
           count(*) FILTER (WHERE status = 3) AS manual, count(*) FILTER (WHERE status = 2 AND muted) AS muted
      FROM result GROUP BY check_id, scope_region
  ), known AS (
    SELECT f.finding_id, f.resource_id, f.check_id, f.ordinal, f.state <> 'RESOLVED' AS active, f.severity, f.muted,
           f.status_detail
      FROM findings f
     WHERE f.organization_id = scan.organization_id AND f.cloud_account_id = scan.cloud_account_id
  ), judged AS MATERIALIZED (
    SELECT resource_id, check_id, ordinal, s.scope_region, s.severity, s.muted, s.status_detail, k.finding_id,
           CASE WHEN k.finding_id IS NULL THEN 'created'
                WHEN NOT k.active THEN 'regressed'
                WHEN s.status IS NULL THEN 'absent'
                WHEN s.status = 1 THEN 'passed'
                ELSE 'unchanged'
           END AS verdict,
           s.status = 2 AND k.finding_id IS NOT NULL
             AND (s.severity <> k.severity OR s.muted <> k.muted OR s.status_detail <> k.status_detail) AS redescribed,
           s.status = 2 AS fails
      FROM seen s FULL JOIN known k USING (resource_id, check_id, ordinal)
     WHERE CASE WHEN k.active THEN true ELSE s.status = 2 END
  ), absent AS MATERIALIZED (
    SELECT j.finding_id, j.check_id, r.scope_region,
           NOT scan.partial AND CASE scan.extent
             WHEN 'REPORTED' THEN p.check_id IS NOT NULL
             WHEN 'LISTED' THEN (scan.services = '{}' OR c.service = ANY (scan.services))
                            AND (scan.regions = '{}' OR r.scope_region = '' OR r.scope_region = ANY (scan.regions))
             ELSE true
           END AS covered
      FROM (SELECT finding_id, check_id, resource_id FROM judged WHERE verdict = 'absent') j
      JOIN resources r ON r.organization_id = scan.organization_id AND r.resource_id = j.resource_id
       AND r.cloud_account_id = scan.cloud_account_id
      JOIN checks c ON c.organization_id = scan.organization_id AND c.check_id = j.check_id
      LEFT JOIN pair p ON p.check_id = j.check_id AND p.scope_region = r.scope_region
  ), unseen_pair AS MATERIALIZED (
    -- Pairs with an active finding that this scan did not see: for the others in it, account_coverage cannot say so.
    SELECT DISTINCT check_id, scope_region FROM absent WHERE NOT covered
  ), change AS MATERIALIZED (
    SELECT j.finding_id, j.verdict, j.fails, j.severity, j.muted, j.status_detail, v.scan_time AS covered_time
      FROM judged j
      LEFT JOIN unseen_pair u USING (check_id, scope_region)
      LEFT JOIN account_coverage v ON v.organization_id = scan.organization_id
       AND v.cloud_account_id = scan.cloud_account_id AND v.check_id = j.check_id AND v.scope_region = j.scope_region
     WHERE j.verdict IN ('passed', 'regressed') OR j.verdict = 'unchanged' AND (j.redescribed OR u.check_id IS NOT NULL)
    UNION ALL
    SELECT a.finding_id, 'unreported', false, NULL, NULL, NULL, v.scan_time
      FROM absent a
      LEFT JOIN account_coverage v ON v.organization_id = scan.organization_id
       AND v.cloud_account_id = scan.cloud_account_id AND v.check_id = a.check_id AND v.scope_region = a.scope_region
     WHERE a.covered
  ), written AS (
    UPDATE findings f
       SET state = CASE WHEN c.verdict IN ('passed', 'unreported') THEN 'RESOLVED'
                        WHEN c.verdict = 'regressed' AND f.accept_time IS NOT NULL
                             AND NOT acceptance_expired(f) THEN 'ACCEPTED_RISK'
                        WHEN c.verdict = 'regressed' THEN 'OPEN'
                        ELSE f.state END,
           state_reason = CASE c.verdict WHEN 'passed' THEN 'passed' WHEN 'unreported' THEN 'not reported'
                                         WHEN 'regressed' THEN 'found again' ELSE f.state_reason END,
           state_scan_id = CASE WHEN c.verdict = 'unchanged' THEN f.state_scan_id ELSE scan.scan_id END,
           resolve_time = CASE WHEN c.verdict IN ('passed', 'unreported') THEN now() END,
           regression_count = f.regression_count + (c.verdict = 'regressed')::int,
           seen_time = CASE WHEN c.verdict IN ('passed', 'unreported') THEN greatest(f.seen_time, c.covered_time)
                            ELSE greatest(f.seen_time, scan.scan_time) END,
           severity = CASE WHEN c.fails THEN c.severity ELSE f.severity END,
           muted = CASE WHEN c.fails THEN c.muted ELSE f.muted END,
           status_detail = CASE WHEN c.fails THEN c.status_detail ELSE f.status_detail END
      FROM change c
     WHERE f.organization_id = scan.organization_id AND f.cloud_account_id = scan.cloud_account_id
       AND f.finding_id = c.finding_id
  ), created AS (
    INSERT INTO findings (organization_id, finding_id, cloud_account_id, resource_id, check_id, state_scan_id, seen_time,
                          ordinal, severity, muted, state_reason, status_detail)
      SELECT scan.organization_id, uuid_v7(), scan.cloud_account_id, resource_id, check_id, scan.scan_id,
             scan.scan_time, ordinal, severity, muted, 'found', status_detail
        FROM judged WHERE verdict = 'created'
  ), covered_pair AS MATERIALIZED (
    SELECT p.check_id, p.scope_region, v.check_id IS NULL AS new
      FROM pair p
      LEFT JOIN unseen_pair u USING (check_id, scope_region)
      LEFT JOIN account_coverage v ON v.organization_id = scan.organization_id
       AND v.cloud_account_id = scan.cloud_account_id AND v.check_id = p.check_id AND v.scope_region = p.scope_region
     WHERE u.check_id IS NULL
  ), coverage_moved AS (
    UPDATE account_coverage v SET scan_id = scan.scan_id, scan_time = greatest(v.scan_time, scan.scan_time)
      FROM covered_pair p
     WHERE v.organization_id = scan.organization_id AND v.cloud_account_id = scan.cloud_account_id
       AND v.check_id = p.check_id AND v.scope_region = p.scope_region
  ), coverage_new AS (
    INSERT INTO account_coverage
      SELECT scan.organization_id, scan.cloud_account_id, check_id, scope_region, scan.scan_id, scan.scan_time
        FROM covered_pair WHERE new
  ), results AS (
    INSERT INTO scan_results
      SELECT scan.organization_id, scan.scan_id, coalesce(array_agg(check_id), '{}'),
             coalesce(array_agg(scope_region), '{}'), coalesce(array_agg(pass), '{}'), coalesce(array_agg(fail), '{}'),
             coalesce(array_agg(manual), '{}')
        FROM (SELECT * FROM pair ORDER BY check_id, scope_region) p
  ), pairs AS (
    SELECT count(*) AS pair_count, coalesce(sum(pass), 0) AS pass, coalesce(sum(fail), 0) AS fail,
           coalesce(sum(manual), 0) AS manual, coalesce(sum(muted), 0) AS muted
      FROM pair
  ), verdicts AS (
    SELECT count(*) FILTER (WHERE verdict = 'created') AS created,
           count(*) FILTER (WHERE verdict = 'unchanged') AS unchanged,
           count(*) FILTER (WHERE verdict = 'passed') AS passed,
           count(*) FILTER (WHERE verdict = 'regressed') AS regressed
      FROM judged
  ), unreported AS (
    SELECT count(*) FILTER (WHERE covered) AS unreported FROM absent
  )
  SELECT pair_count, pass, fail, manual, muted, created, unchanged, passed, regressed, unreported
    INTO counted.pair_count, counted.pass_count, counted.fail_count, counted.manual_count, counted.muted_count,
         counted.created_count, counted.unchanged_count, counted.passed_count, counted.regressed_count,
         counted.unreported_count
    FROM pairs, verdicts, unreported;
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
  SELECT r.next_record INTO next_record FROM import_runs r
   WHERE r.organization_id = $1 AND r.scan_id = $2 FOR UPDATE;
  IF NOT FOUND THEN
    refusal := 'SCAN_NOT_RUNNING';
    RETURN;
  ELSIF next_record <> $3 + 1 THEN
    refusal := 'IMPORT_INCOMPLETE';
    refusal_next_record := next_record;
    RETURN;
  END IF;
  SELECT s.* INTO scan FROM scans s WHERE s.organization_id = $1 AND s.scan_id = $2 FOR NO KEY UPDATE;
  SELECT coalesce(sum(b.refused_count), 0) INTO refused
    FROM import_batches b WHERE b.organization_id = $1 AND b.scan_id = $2;
  SELECT a.provider INTO provider
    FROM cloud_accounts a WHERE a.organization_id = $1 AND a.cloud_account_id = scan.cloud_account_id;
  scan.refused_count := refused;
  scan.partial := $4 OR refused > 0;
  PERFORM import_checks($1, $2, provider);
  PERFORM import_resources($1, $2, scan.cloud_account_id, provider);
  scan := import_findings(scan, provider);
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
