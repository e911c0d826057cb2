-- Stores a batch of an import once and extends the import's lease.
WITH run AS (
  SELECT next_record FROM import_runs
   WHERE organization_id = :organization_id AND scan_id = :scan_id FOR UPDATE
), stored AS (
  INSERT INTO import_batches
    SELECT :organization_id, :scan_id, :first_record, cardinality(:refused__record::int8[]),
           :evaluations__check, :evaluations__service, :evaluations__resource_uid, :evaluations__region,
           :evaluations__resource_display_name, :evaluations__status, :evaluations__severity,
           :evaluations__status_detail, :evaluations__muted,
           :checks__check, :checks__service, :checks__title, :checks__description, :checks__risk, :checks__remediation,
           :checks__reference_urls, :checks__compliance_json,
           :resources__uid, :resources__region, :resources__display_name, :resources__type, :resources__service,
           :resources__labels, :resources__metadata_json
      FROM run WHERE run.next_record = :first_record
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
