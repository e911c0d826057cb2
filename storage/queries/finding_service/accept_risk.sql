-- AcceptRisk: an approved exception, until its expire_time where it has one.
WITH before AS (
  SELECT f.version::text AS etag, state_now(f) AS state FROM findings f
   WHERE f.organization_id = :organization_id AND f.finding_id = :finding_id FOR UPDATE
), after AS (
  UPDATE findings f
     SET state = 'ACCEPTED_RISK', state_reason = :justification, state_scan_id = NULL, approver = :caller_id,
         justification = :justification, accept_time = now(), acceptance_expire_time = :expire_time
    FROM before
   WHERE f.organization_id = :organization_id AND f.finding_id = :finding_id
     AND :etag IN ('', before.etag) AND before.state IN ('OPEN', 'ACKNOWLEDGED')
  RETURNING f AS finding
)
SELECT CASE WHEN :etag NOT IN ('', before.etag) THEN 'ETAG_MISMATCH'
            WHEN NOT (before.state IN ('OPEN', 'ACKNOWLEDGED')) THEN 'FINDING_NOT_ACCEPTABLE' END AS refusal,
       before.state AS refusal_state, message.*
  FROM before
  LEFT JOIN after ON true
  LEFT JOIN LATERAL finding_message(after.finding, :organization_slug) message ON true;
