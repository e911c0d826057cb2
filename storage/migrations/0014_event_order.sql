-- A finding's history is in the order of its changes.

-- As before, but a change has the time at which it is written, while its row is locked. now() is when the transaction
-- began: one that had to wait for another stood before it in the history.
CREATE OR REPLACE FUNCTION write_finding_events() RETURNS trigger
  LANGUAGE plpgsql SET enable_nestloop = off  -- the plan is kept, for one row and for a hundred thousand
AS $$
DECLARE
  change_time timestamptz := clock_timestamp();
BEGIN
  WITH change AS (
    SELECT a.*, b.version AS version_before, b.acceptance_expire_time AS expired_at, b.expired,
           CASE WHEN b.expired THEN 'OPEN' ELSE b.state END AS state_before
      FROM (SELECT *, state = 'ACCEPTED_RISK' AND coalesce(acceptance_expire_time <= now(), false) AS expired
              FROM before) b
      JOIN after a USING (organization_id, finding_id)
     WHERE a.state <> b.state OR b.expired
  )
  INSERT INTO finding_events
    SELECT organization_id, finding_id, expired_at, version_before, NULL, 'ACCEPTED_RISK', 'OPEN', 'system',
           'expired', NULL
      FROM change WHERE expired
    UNION ALL
    SELECT organization_id, finding_id, change_time, version, state_scan_id, state_before, state,
           call_setting('caller', 'system'), state_reason,
           CASE WHEN state = 'ACCEPTED_RISK' THEN acceptance_expire_time END
      FROM change WHERE state <> state_before;
  RETURN NULL;
END
$$;
CALL make_system_function('write_finding_events()');
