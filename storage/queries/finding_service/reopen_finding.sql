-- ReopenFinding: takes an acknowledgement back.
WITH before AS (
  SELECT f.version::text AS etag, state_now(f) AS state FROM findings f
   WHERE f.organization_id = :organization_id AND f.finding_id = :finding_id FOR UPDATE
), after AS (
  UPDATE findings f
     SET state = 'OPEN', state_reason = :note, state_scan_id = NULL
    FROM before
   WHERE f.organization_id = :organization_id AND f.finding_id = :finding_id
     AND :etag IN ('', before.etag) AND before.state = 'ACKNOWLEDGED'
  RETURNING f AS finding
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH'
            WHEN NOT (before.state = 'ACKNOWLEDGED') THEN 'FINDING_NOT_ACKNOWLEDGED' END AS refusal,
       before.state AS refusal_state, message.*
  FROM before
  LEFT JOIN after ON true
  LEFT JOIN LATERAL finding_message(after.finding, :organization_slug) message ON true;
