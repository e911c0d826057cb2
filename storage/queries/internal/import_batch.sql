-- Stores a batch of an import once, with what the end of the import needs to know at a glance, and extends the lease.
WITH run AS (
  SELECT next_record FROM import_runs
   WHERE organization_id = :organization_id AND scan_id = :scan_id FOR UPDATE
), result AS (
  SELECT unnest(:evaluations__check::text[]) AS check_key, unnest(:evaluations__service::text[]) AS service,
         unnest(:evaluations__region::text[]) AS region, unnest(:evaluations__status::int2[]) AS status,
         unnest(:evaluations__muted::bool[]) AS muted, unnest(:evaluations__severity::int2[]) AS severity,
         unnest(:evaluations__resource_uid::text[]) AS resource_uid,
         unnest(:evaluations__resource_display_name::text[]) AS resource_name,
         unnest(:evaluations__status_detail::text[]) AS status_detail
), hashed AS (
  SELECT check_key, service, region, status, muted,
         hashtextextended(resource_uid, hashtextextended(resource_name, hashtextextended(status_detail,
           status * 1000 + severity * 10 + muted::int4))) AS hash
    FROM result OFFSET 0
), pair AS (
  SELECT check_key, service, region, count(*) FILTER (WHERE status = 1)::int4 AS pass,
         count(*) FILTER (WHERE status = 2)::int4 AS fail, count(*) FILTER (WHERE status = 3)::int4 AS manual,
         count(*) FILTER (WHERE status = 2 AND muted)::int4 AS muted,
         sum((hash >> 32)::int4) AS digest_high, sum((hash << 32 >> 32)::int4) AS digest_low
    FROM hashed GROUP BY check_key, service, region
), pairs AS (
  SELECT coalesce(array_agg(check_key), '{}') AS checks, coalesce(array_agg(service), '{}') AS services,
         coalesce(array_agg(region), '{}') AS regions, coalesce(array_agg(pass), '{}') AS passes,
         coalesce(array_agg(fail), '{}') AS fails, coalesce(array_agg(manual), '{}') AS manuals,
         coalesce(array_agg(muted), '{}') AS muteds, coalesce(array_agg(digest_high), '{}') AS digests_high,
         coalesce(array_agg(digest_low), '{}') AS digests_low
    FROM pair
), described AS (
  -- Each text has its length before it: no two descriptions read the same.
  SELECT coalesce(array_agg(length(metadata_json)), '{}') AS lengths,
         coalesce(array_agg(sha256(convert_to(concat_ws(',', length(display_name), display_name, length(type), type,
                                                        length(service), service, labels, metadata_json), 'UTF8'))),
                  '{}') AS hashes
    FROM (SELECT unnest(:resources__display_name::text[]) AS display_name, unnest(:resources__type::text[]) AS type,
                 unnest(:resources__service::text[]) AS service, unnest(:resources__labels::jsonb[]) AS labels,
                 unnest(:resources__metadata_json::text[]) AS metadata_json) description
), stored AS (
  INSERT INTO import_batches (
      organization_id, scan_id, first_record, refused_count,
      checks, services, resource_uids, regions, resource_names, statuses, severities, status_details, muted,
      pair_checks, pair_services, pair_regions, pair_pass_counts, pair_fail_counts, pair_manual_counts,
      pair_muted_counts, pair_digests_high, pair_digests_low,
      check_keys, check_services, check_titles, check_descriptions, check_risks, check_remediations,
      check_reference_urls, check_compliance,
      described_uids, described_regions, described_names, described_types, described_services, described_labels,
      described_metadata, described_lengths, described_hashes)
    SELECT :organization_id, :scan_id, :first_record, cardinality(:refused__record::int8[]),
           :evaluations__check::text[], :evaluations__service::text[], :evaluations__resource_uid::text[],
           :evaluations__region::text[], :evaluations__resource_display_name::text[], :evaluations__status::int2[],
           :evaluations__severity::int2[], :evaluations__status_detail::text[], :evaluations__muted::bool[],
           pairs.checks, pairs.services, pairs.regions, pairs.passes, pairs.fails, pairs.manuals, pairs.muteds,
           pairs.digests_high, pairs.digests_low,
           :checks__check, :checks__service, :checks__title, :checks__description, :checks__risk, :checks__remediation,
           :checks__reference_urls, :checks__compliance_json,
           :resources__uid, :resources__region, :resources__display_name::text[], :resources__type::text[],
           :resources__service::text[], :resources__labels::jsonb[], :resources__metadata_json::text[],
           described.lengths, described.hashes
      FROM run, pairs, described WHERE run.next_record = :first_record
), extended AS (
  UPDATE import_runs r
     SET lease_time = now() + interval '30 seconds',
         next_record = CASE WHEN run.next_record = :first_record THEN :first_record + :record_count::int4
                            ELSE run.next_record END
    FROM run
   WHERE r.organization_id = :organization_id AND r.scan_id = :scan_id
  RETURNING r.next_record
)
SELECT CASE WHEN run.next_record IS NULL THEN 'SCAN_NOT_RUNNING'
            WHEN run.next_record <> :first_record AND run.next_record < :first_record + :record_count::int4
              THEN 'BATCH_OUT_OF_ORDER' END AS refusal,
       run.next_record::text AS refusal_next_record, extended.next_record
  FROM (VALUES (true)) always LEFT JOIN run ON true LEFT JOIN extended ON true;
