-- AcknowledgeFinding: reviewed, still active. Only an OPEN finding can be acknowledged.
WITH before AS (
  SELECT f.version::text AS etag, state_now(f) AS state FROM findings f
   WHERE f.organization_id = :organization_id AND f.finding_id = :finding_id FOR UPDATE
), after AS (
  UPDATE findings f
     SET state = 'ACKNOWLEDGED', state_reason = :note, state_scan_id = NULL
    FROM before
   WHERE f.organization_id = :organization_id AND f.finding_id = :finding_id
     AND :etag IN ('', before.etag) AND before.state = 'OPEN'
  RETURNING f AS finding
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH'
            WHEN NOT (before.state = 'OPEN') THEN 'FINDING_NOT_OPEN' END AS refusal,
       before.state AS refusal_state, message.*
  FROM before
  LEFT JOIN after ON true
  LEFT JOIN LATERAL finding_message(after.finding, :organization_slug) message ON true;
