-- The task channel: what its servers do for many agents of many organizations at once. A function takes arrays that run
-- in parallel, an element for each message of an agent's, and changes all of it in one transaction. Whatever it changes
-- it finds by task, attempt, fence and agent; what is not found is fenced.
--
-- What runs often is in PL/pgSQL, which keeps its plans: a function in SQL is parsed and planned at every call.
--
-- Locks are taken in one order, so that nobody waits in a circle: sessions, then tasks' rows, then their leases, then
-- their attempts, each by their ids. What many agents say at once comes in any order, and a statement locks rows as its
-- plan has them: those of a batch are therefore locked before it.

-- Without a cache: the fences of a task ascend, whichever connection makes them.
CREATE SEQUENCE task_fences;
GRANT USAGE ON SEQUENCE task_fences TO genie_system;

CALL allow_system('tasks_live', 'SELECT, INSERT, UPDATE, DELETE');

CREATE FUNCTION lock_leases(organization_ids uuid[], task_ids uuid[]) RETURNS void
  LANGUAGE plpgsql
AS $$
BEGIN
  IF cardinality($2) < 2 THEN  -- what follows locks it
    RETURN;
  END IF;
  PERFORM FROM task_leases l
    WHERE (l.organization_id, l.task_id) IN (SELECT * FROM unnest($1, $2))
    ORDER BY l.organization_id, l.task_id FOR UPDATE;
END
$$;

CREATE FUNCTION lock_tasks(organization_ids uuid[], task_ids uuid[]) RETURNS void
  LANGUAGE plpgsql
AS $$
BEGIN
  IF cardinality($2) < 2 THEN
    RETURN;
  END IF;
  PERFORM FROM tasks_live t
    WHERE (t.organization_id, t.task_id) IN (SELECT * FROM unnest($1, $2))
    ORDER BY t.organization_id, t.task_id FOR NO KEY UPDATE;
  PERFORM lock_leases($1, $2);
END
$$;

CREATE FUNCTION lock_attempts(organization_ids uuid[], task_ids uuid[], attempts int[]) RETURNS void
  LANGUAGE plpgsql
AS $$
BEGIN
  IF cardinality($2) < 2 THEN
    RETURN;
  END IF;
  PERFORM FROM task_attempts a
    WHERE (a.organization_id, a.task_id, a.attempt) IN (SELECT * FROM unnest($1, $2, $3))
    ORDER BY a.organization_id, a.task_id, a.attempt FOR NO KEY UPDATE;
END
$$;

-- A session of an agent begins: a higher epoch, what the instance has, and what becomes of it. No row: the agent is gone.
-- `superseded`: the instance's own last session has been taken over by another instance, which is connected.
-- The arrays run beside tasks: Disposition.Decision, and how far the logs are.
CREATE FUNCTION open_session(organization_id uuid, agent_id uuid, agent_key_id uuid, replica_id uuid,
                             instance_id uuid, last_epoch bigint, version text, labels jsonb, kinds smallint[],
                             tasks uuid[], attempts int[], fences bigint[], lease interval,
                             OUT superseded boolean, OUT session_epoch bigint, OUT key_offered boolean,
                             OUT decisions smallint[], OUT stdout_offsets bigint[], OUT stderr_offsets bigint[])
  RETURNS SETOF record
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  before agent_sessions;
  overlap interval;
BEGIN
  SELECT a.key_offer_time IS NOT NULL, a.key_offer_overlap INTO key_offered, overlap
    FROM agents a WHERE a.organization_id = $1 AND a.agent_id = $2 FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT s.* INTO before FROM agent_sessions s WHERE s.organization_id = $1 AND s.agent_id = $2 FOR UPDATE;
  superseded := $6 > 0 AND $6 < before.session_epoch AND before.instance_id <> $5 AND before.disconnect_time IS NULL
                AND EXISTS (SELECT FROM replicas r WHERE r.replica_id = before.replica_id AND r.lease_time > now());
  superseded := coalesce(superseded, false);
  IF superseded THEN
    session_epoch := before.session_epoch;
    RETURN NEXT;
    RETURN;
  END IF;

  INSERT INTO agent_sessions AS s (organization_id, agent_id, session_epoch, replica_id, instance_id, version, labels,
                                   kinds)
    VALUES ($1, $2, 1, $4, $5, $7, coalesce($8, '{}'), $9)
    ON CONFLICT (organization_id, agent_id) DO UPDATE
       SET session_epoch = s.session_epoch + 1, replica_id = excluded.replica_id, instance_id = excluded.instance_id,
           version = excluded.version, labels = excluded.labels, kinds = excluded.kinds, connect_time = now(),
           disconnect_time = NULL, disconnect_reason = ''
    RETURNING s.session_epoch INTO session_epoch;

  -- The first use of a key that was handed over in the channel: the older ones end.
  UPDATE agent_keys k SET offered = false
   WHERE k.organization_id = $1 AND k.agent_id = $2 AND k.agent_key_id = $3 AND k.offered;
  IF FOUND THEN
    UPDATE agent_keys k SET expire_time = least(k.expire_time, now() + overlap)
     WHERE k.organization_id = $1 AND k.agent_id = $2 AND k.agent_key_id <> $3;
    UPDATE agents a SET key_offer_time = NULL, key_offer_overlap = NULL
      FROM agent_keys k
     WHERE a.organization_id = $1 AND a.agent_id = $2 AND k.organization_id = $1 AND k.agent_id = $2
       AND k.agent_key_id = $3 AND k.create_time >= a.key_offer_time;
    key_offered := NOT FOUND;  -- a later rotation wants a key that is newer than itself
  END IF;

  -- Offers that the instance does not know of were lost on the way, or were another instance's.
  WITH lost AS (
    SELECT t.task_id FROM tasks t JOIN task_leases l USING (organization_id, task_id)
     WHERE t.organization_id = $1 AND t.filed_time = 'infinity' AND t.state = 'OFFERED' AND t.agent_id = $2
       AND NOT l.started AND NOT EXISTS (SELECT FROM unnest($10, $12) has (task_id, fence)
                                          WHERE has.task_id = l.task_id AND has.fence = l.fence)
     ORDER BY t.task_id FOR UPDATE OF t, l
  ), returned AS (
    UPDATE tasks t SET state = 'PENDING', state_reason = 'SESSION_ENDED', state_actor = 'system',
                       next_attempt_time = now()
      FROM lost WHERE t.organization_id = $1 AND t.filed_time = 'infinity' AND t.task_id = lost.task_id
    RETURNING t.task_id
  )
  DELETE FROM task_leases l USING returned WHERE l.organization_id = $1 AND l.task_id = returned.task_id;

  PERFORM lock_leases(array_fill($1, ARRAY[cardinality($10)]), $10);
  WITH has AS (
    SELECT * FROM unnest($10, $11, $12) WITH ORDINALITY has (task_id, attempt, fence, n)
  ), leased AS (
    UPDATE task_leases l
       SET replica_id = $4, lease_time = CASE WHEN l.started THEN now() + $13 ELSE l.lease_time END
      FROM has
     WHERE l.organization_id = $1 AND l.task_id = has.task_id AND l.attempt = has.attempt AND l.fence = has.fence
       AND l.agent_id = $2
    RETURNING has.n, l.started
  ), decided AS (
    SELECT has.n,
           CASE WHEN leased.started THEN 1
                WHEN NOT leased.started THEN 5
                WHEN a.outcome IN ('SUCCEEDED', 'FAILED', 'CANCELLED') THEN 3
                WHEN a.fence IS NOT NULL OR EXISTS (SELECT FROM tasks t
                      WHERE t.organization_id = $1 AND t.task_id = has.task_id AND t.attempt >= has.attempt) THEN 2
                ELSE 4 END::smallint AS decision,
           coalesce(a.stdout_offset, 0) AS stdout_offset, coalesce(a.stderr_offset, 0) AS stderr_offset
      FROM has
      LEFT JOIN leased USING (n)
      LEFT JOIN task_attempts a
        ON a.organization_id = $1 AND a.task_id = has.task_id AND a.attempt = has.attempt AND a.fence = has.fence
       AND a.agent_id = $2
  )
  SELECT coalesce(array_agg(decision ORDER BY n), '{}'), coalesce(array_agg(stdout_offset ORDER BY n), '{}'),
         coalesce(array_agg(stderr_offset ORDER BY n), '{}')
    INTO decisions, stdout_offsets, stderr_offsets
    FROM decided;
  RETURN NEXT;
END
$$;

-- Sessions that have ended.
CREATE FUNCTION close_sessions(organization_ids uuid[], agent_ids uuid[], epochs bigint[], reasons text[]) RETURNS void
  LANGUAGE plpgsql
AS $$
BEGIN
  UPDATE agent_sessions s SET disconnect_time = now(), disconnect_reason = ended.reason
    FROM unnest($1, $2, $3, $4) ended (organization_id, agent_id, session_epoch, reason)
   WHERE s.organization_id = ended.organization_id AND s.agent_id = ended.agent_id
     AND s.session_epoch = ended.session_epoch AND s.disconnect_time IS NULL;
END
$$;
CALL make_system_function('close_sessions(uuid[], uuid[], bigint[], text[])');

-- Sessions that began of late and are a replica's, which the replica compares with those that it has: where the answer of
-- open_session was lost, and its agent went, nobody else would ever end them. One whose answer is on its way is left out.
CREATE FUNCTION find_new_sessions(replica_id uuid)
  RETURNS TABLE (organization_id uuid, agent_id uuid, session_epoch bigint)
  LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT s.organization_id, s.agent_id, s.session_epoch FROM agent_sessions s
     WHERE s.replica_id = $1 AND s.disconnect_time IS NULL
       AND s.connect_time BETWEEN now() - interval '1 minute' AND now() - interval '8 seconds';
END
$$;
CALL make_system_function('find_new_sessions(uuid)');

CREATE FUNCTION no_task_waits(organization_id uuid, kind smallint) RETURNS boolean
  LANGUAGE plpgsql STABLE
AS $$
BEGIN
  RETURN NOT EXISTS (SELECT FROM tasks_live t
                      WHERE t.organization_id = $1 AND t.state = 'PENDING' AND t.kind = $2
                        AND t.next_attempt_time <= now() AND t.expire_time > now());
END
$$;

-- Offers what waits: for each element up to `free` tasks of its kind, best first. `item` counts the elements from 1;
-- those of an organization and kind stand together. A row without a task: no more of that kind wait there.
CREATE FUNCTION claim_tasks(replica_id uuid, offer_limit interval, organization_ids uuid[], agent_ids uuid[],
                            epochs bigint[], kinds smallint[], free int[])
  RETURNS TABLE (item int, kind smallint, task_id uuid, organization_slug text, attempt int, fence bigint,
                 payload bytea, idempotency_key text, time_to_live_ms bigint, effect_keys text[],
                 effect_references text[], effect_attempts int[])
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  nothing boolean;  -- of the kind waits in the organization
  has_labels jsonb;
BEGIN
  FOR i IN 1 .. cardinality(organization_ids) LOOP
    IF (organization_ids[i - 1], kinds[i - 1]) IS DISTINCT FROM (organization_ids[i], kinds[i]) THEN
      nothing := no_task_waits(organization_ids[i], kinds[i]);
    END IF;
    IF NOT nothing THEN
      SELECT s.labels INTO has_labels FROM agent_sessions s
       WHERE s.organization_id = organization_ids[i] AND s.agent_id = agent_ids[i] AND s.session_epoch = epochs[i]
         AND s.disconnect_time IS NULL;
      CONTINUE WHEN NOT FOUND;
      RETURN QUERY
        WITH due AS (
          SELECT t.ctid AS place FROM tasks_live t
           WHERE t.organization_id = organization_ids[i] AND t.state = 'PENDING' AND t.kind = kinds[i]
             AND t.next_attempt_time <= now() AND t.expire_time > now()
             AND t.labels <@ has_labels AND (t.target_agent_id IS NULL OR t.target_agent_id = agent_ids[i])
           ORDER BY t.priority DESC, t.task_id
           LIMIT free[i] FOR UPDATE SKIP LOCKED
        ), offered AS (
          UPDATE tasks_live t
             SET state = 'OFFERED', attempt = t.attempt + 1, fence = nextval('task_fences'), agent_id = agent_ids[i],
                 state_reason = '', state_actor = 'system'
            FROM due
           WHERE t.ctid = due.place  -- the row is locked, and this is no plan that depends on how many there are
          RETURNING t.*
        ), leased AS (
          INSERT INTO task_leases (organization_id, task_id, attempt, fence, agent_id, replica_id, lease_time)
            SELECT o.organization_id, o.task_id, o.attempt, o.fence, o.agent_id, $1, now() + $2 FROM offered o
        )
        SELECT i, o.kind, o.task_id, (SELECT slug FROM organizations n WHERE n.organization_id = o.organization_id),
               o.attempt, o.fence, o.payload, o.idempotency_key,
               (extract(epoch FROM o.expire_time - now()) * 1000)::bigint, e.keys, e.refs, e.attempts
          FROM offered o
          CROSS JOIN LATERAL (SELECT coalesce(array_agg(key ORDER BY key), '{}') AS keys,
                                     coalesce(array_agg(reference ORDER BY key), '{}') AS refs,
                                     coalesce(array_agg(f.attempt ORDER BY key), '{}') AS attempts
                                FROM task_effects f
                               WHERE f.organization_id = o.organization_id AND f.task_id = o.task_id) e
         ORDER BY o.priority DESC, o.task_id;
      IF FOUND THEN
        nothing := no_task_waits(organization_ids[i], kinds[i]);
      END IF;
    END IF;
    IF nothing AND (organization_ids[i + 1], kinds[i + 1]) IS DISTINCT FROM (organization_ids[i], kinds[i]) THEN
      item := i;
      kind := kinds[i];
      RETURN NEXT;
    END IF;
  END LOOP;
END
$$;
CALL make_system_function('claim_tasks(uuid, interval, uuid[], uuid[], bigint[], smallint[], int[])');

-- Offers that were taken: the items that run now, and whether they are to be told to stop already. One that ran already
-- is told again, if it still does: that is looked at when the others are written, and what they have waited for.
CREATE FUNCTION start_tasks(replica_id uuid, lease interval, organization_ids uuid[], task_ids uuid[], attempts int[],
                            fences bigint[], agent_ids uuid[]) RETURNS TABLE (item bigint, cancelling boolean)
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
  PERFORM lock_tasks($3, $4);
  WITH ack AS (
    SELECT * FROM unnest($3, $4, $5, $6, $7) ack (organization_id, task_id, attempt, fence, agent_id)
  ), started AS (
    UPDATE tasks_live t
       SET state = 'RUNNING', start_count = t.start_count + 1, start_time = now(), state_reason = '',
           state_actor = 'agent:' || t.agent_id
      FROM ack
     WHERE t.organization_id = ack.organization_id AND t.task_id = ack.task_id AND t.attempt = ack.attempt
       AND t.fence = ack.fence AND t.agent_id = ack.agent_id AND t.state = 'OFFERED'
    RETURNING ack.*
  ), leased AS (
    UPDATE task_leases l SET started = true, lease_time = now() + $2, replica_id = $1
      FROM started s WHERE l.organization_id = s.organization_id AND l.task_id = s.task_id
  )
  INSERT INTO task_attempts (organization_id, task_id, attempt, fence, agent_id)
    SELECT organization_id, task_id, attempt, fence, agent_id FROM started;

  RETURN QUERY
    SELECT ack.item, l.cancelling
      FROM unnest($3, $4, $5, $6, $7) WITH ORDINALITY ack (organization_id, task_id, attempt, fence, agent_id, item)
      JOIN task_leases l USING (organization_id, task_id, attempt, fence, agent_id)
     WHERE l.started;
END
$$;
CALL make_system_function('start_tasks(uuid, interval, uuid[], uuid[], int[], bigint[], uuid[])');

-- Offers that were not taken.
CREATE FUNCTION reject_tasks(organization_ids uuid[], task_ids uuid[], attempts int[], fences bigint[],
                             agent_ids uuid[], reasons text[], messages text[], permanent boolean[], after interval[])
  RETURNS TABLE (item bigint)
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
  PERFORM lock_tasks($1, $2);
  RETURN QUERY
    WITH reject AS (
      SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) WITH ORDINALITY
                    reject (organization_id, task_id, attempt, fence, agent_id, reason, message, permanent, after, item)
    ), rejected AS (
      UPDATE tasks_live t
         SET state = CASE WHEN r.permanent THEN 'FAILED' ELSE 'PENDING' END,
             state_reason = coalesce(nullif(r.reason, ''), 'REJECTED'), state_actor = 'agent:' || t.agent_id,
             failure_reason = coalesce(nullif(r.reason, ''), 'REJECTED'), failure_message = r.message,
             failure_permanent = r.permanent, next_attempt_time = now() + coalesce(r.after, '5 seconds'),
             end_time = CASE WHEN r.permanent THEN now() END
        FROM reject r
       WHERE t.organization_id = r.organization_id AND t.task_id = r.task_id AND t.attempt = r.attempt
         AND t.fence = r.fence AND t.agent_id = r.agent_id AND t.state = 'OFFERED'
      RETURNING r.organization_id, r.task_id, r.item
    ), released AS (
      DELETE FROM task_leases l USING rejected r WHERE l.organization_id = r.organization_id AND l.task_id = r.task_id
    )
    SELECT item FROM rejected;
END
$$;
CALL make_system_function('reject_tasks(uuid[], uuid[], int[], bigint[], uuid[], text[], text[], boolean[], interval[])');

-- How long a task waits after so many starts.
CREATE FUNCTION task_backoff(start_count int) RETURNS interval
  LANGUAGE sql IMMUTABLE
AS $$ SELECT least(interval '10 seconds' * 2 ^ least(greatest(start_count - 1, 0), 10), interval '1 hour') $$;

-- Whether a result (Result.Status) says that the task could not be done: all but success, and the end of a cancel.
CREATE FUNCTION result_is_failure(state text, status int) RETURNS boolean
  LANGUAGE sql IMMUTABLE
AS $$ SELECT NOT (status = 1 OR status = 3 AND state = 'CANCELLING') $$;

-- The state of a RUNNING or CANCELLING task after a result.
CREATE FUNCTION state_after_result(state text, status int, permanent boolean, start_count int, max_attempts int)
  RETURNS text
  LANGUAGE sql IMMUTABLE
AS $$
  SELECT CASE WHEN status = 1 THEN 'SUCCEEDED'
              WHEN state = 'CANCELLING' AND status = 3 THEN 'CANCELLED'
              WHEN state = 'RUNNING' AND NOT permanent
                THEN CASE WHEN start_count < max_attempts THEN 'PENDING' ELSE 'DEAD' END
              ELSE 'FAILED' END
$$;

-- How attempts ended (Result.Status): for each item whether it counts (ResultAck.Status). In two steps: whether a result
-- counts already is asked after those of the same statement, and those that it has waited for, are written. A Cancel
-- that was not answered is answered by it: the agent has stopped, or could not.
CREATE FUNCTION end_tasks(organization_ids uuid[], task_ids uuid[], attempts int[], fences bigint[], agent_ids uuid[],
                          result_ids uuid[], statuses smallint[], reasons text[], messages text[],
                          permanent boolean[], after interval[], outputs jsonb[], stdout_ends bigint[],
                          stderr_ends bigint[])
  RETURNS TABLE (item bigint, status smallint)
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
  accepted bigint[];
BEGIN
  PERFORM lock_tasks($1, $2);
  PERFORM lock_attempts($1, $2, $3);
  WITH result AS (
    SELECT organization_id, task_id, attempt, fence, agent_id, result_id, status, message, permanent, after, outputs,
           stdout_end, stderr_end, item,
           coalesce(nullif(reason, ''), CASE status WHEN 3 THEN 'STOPPED' ELSE 'FAILED' END) AS reason
      FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) WITH ORDINALITY
                  result (organization_id, task_id, attempt, fence, agent_id, result_id, status, reason, message,
                          permanent, after, outputs, stdout_end, stderr_end, item)
  ), ended AS (
    UPDATE tasks_live t
       SET state = state_after_result(t.state, r.status, r.permanent, t.start_count, t.max_attempts),
           state_actor = 'agent:' || t.agent_id,
           state_reason = CASE WHEN result_is_failure(t.state, r.status) THEN r.reason ELSE '' END,
           failure_reason = CASE WHEN result_is_failure(t.state, r.status) THEN r.reason ELSE '' END,
           failure_message = CASE WHEN result_is_failure(t.state, r.status) THEN r.message ELSE '' END,
           failure_permanent = r.permanent AND result_is_failure(t.state, r.status),
           outputs = coalesce(r.outputs, '{}'),
           next_attempt_time = now() + coalesce(r.after, task_backoff(t.start_count)),
           end_time = CASE WHEN state_after_result(t.state, r.status, r.permanent, t.start_count, t.max_attempts)
                                <> 'PENDING' THEN now() END,
           cancel_answer = CASE WHEN t.state = 'CANCELLING' AND t.cancel_answer < 2
                                THEN CASE r.status WHEN 3 THEN 2 ELSE 3 END ELSE t.cancel_answer END
      FROM result r
     WHERE t.organization_id = r.organization_id AND t.task_id = r.task_id AND t.attempt = r.attempt
       AND t.fence = r.fence AND t.agent_id = r.agent_id AND t.state IN ('RUNNING', 'CANCELLING')
    RETURNING r.*
  ), released AS (
    DELETE FROM task_leases l USING ended e WHERE l.organization_id = e.organization_id AND l.task_id = e.task_id
  ), noted AS (
    UPDATE task_attempts a
       SET end_time = now(), result_id = e.result_id,
           stdout_end = coalesce(a.stdout_end, e.stdout_end), stderr_end = coalesce(a.stderr_end, e.stderr_end),
           outcome = CASE e.status WHEN 1 THEN 'SUCCEEDED' WHEN 3 THEN 'CANCELLED' ELSE 'FAILED' END
      FROM ended e
     WHERE a.organization_id = e.organization_id AND a.task_id = e.task_id AND a.attempt = e.attempt
  )
  SELECT array_agg(item) INTO accepted FROM ended;

  RETURN QUERY
    SELECT r.item,
           CASE WHEN r.item = ANY (accepted) THEN 1 WHEN a.result_id = r.result_id THEN 2 ELSE 3 END::smallint
      FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY
                  r (organization_id, task_id, attempt, fence, agent_id, result_id, item)
      LEFT JOIN task_attempts a USING (organization_id, task_id, attempt, fence, agent_id);
END
$$;
CALL make_system_function('end_tasks(uuid[], uuid[], int[], bigint[], uuid[], uuid[], smallint[], text[], text[], boolean[], interval[], jsonb[], bigint[], bigint[])');

-- What attempts that run have made outside: the items that are noted. A task has at most 100. A lease is held while its
-- effects are written: it cannot be taken back, and the journal handed on, in between.
CREATE FUNCTION note_effects(organization_ids uuid[], task_ids uuid[], attempts int[], fences bigint[],
                             agent_ids uuid[], keys text[], refs text[]) RETURNS TABLE (item bigint)
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH held AS (
      SELECT effect.*
        FROM unnest($1, $2, $3, $4, $5, $6, $7) WITH ORDINALITY
                    effect (organization_id, task_id, attempt, fence, agent_id, key, reference, item)
        JOIN task_leases l USING (organization_id, task_id, attempt, fence, agent_id)
       WHERE l.started
       ORDER BY l.organization_id, l.task_id FOR KEY SHARE OF l
    ), ranked AS (
      SELECT held.*, f.key IS NOT NULL AS known,
             dense_rank() OVER (PARTITION BY organization_id, task_id, f.key IS NULL ORDER BY held.key) AS rank
        FROM held LEFT JOIN task_effects f USING (organization_id, task_id, key)
    ), effect AS (
      SELECT * FROM ranked
       WHERE known OR rank + (SELECT count(*) FROM task_effects f WHERE f.organization_id = ranked.organization_id
                                 AND f.task_id = ranked.task_id) <= 100
    ), noted AS (
      INSERT INTO task_effects (organization_id, task_id, key, reference, attempt)
        SELECT DISTINCT ON (organization_id, task_id, key) organization_id, task_id, key, reference, attempt
          FROM effect ORDER BY organization_id, task_id, key, item DESC
      ON CONFLICT (organization_id, task_id, key) DO UPDATE
         SET reference = excluded.reference, attempt = excluded.attempt
    )
    SELECT item FROM effect;
END
$$;
CALL make_system_function('note_effects(uuid[], uuid[], int[], bigint[], uuid[], text[], text[])');

-- Pieces of logs. What a session says of one part of an attempt's log follows each other; all that it says of an attempt
-- goes in if the first pieces begin where its log ends, and none goes beyond the end that was told of its part, else
-- none: where a session says again what the one before it said, one of the two goes in. For each attempt and session (by
-- its first piece, `item`) how far the attempt's log is now (NULL: fenced), and where it ends.
CREATE FUNCTION append_logs(organization_ids uuid[], task_ids uuid[], attempts int[], fences bigint[],
                            agent_ids uuid[], streams smallint[], offsets bigint[], pieces bytea[], eofs boolean[],
                            epochs bigint[])
  RETURNS TABLE (item bigint, stdout_offset bigint, stderr_offset bigint, stdout_end bigint, stderr_end bigint)
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
  PERFORM lock_attempts($1, $2, $3);
  RETURN QUERY
    WITH piece AS (
      SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) WITH ORDINALITY
                    piece (organization_id, task_id, attempt, fence, agent_id, stream, log_offset, data, eof, epoch, item)
    ), part AS (
      SELECT organization_id, task_id, attempt, fence, agent_id, epoch, min(item) AS item,
             min(log_offset) FILTER (WHERE stream = 1) AS stdout_begin,
             max(log_offset + length(data)) FILTER (WHERE stream = 1) AS stdout_next,
             bool_or(eof) FILTER (WHERE stream = 1) AS stdout_eof,
             min(log_offset) FILTER (WHERE stream = 2) AS stderr_begin,
             max(log_offset + length(data)) FILTER (WHERE stream = 2) AS stderr_next,
             bool_or(eof) FILTER (WHERE stream = 2) AS stderr_eof
        FROM piece GROUP BY organization_id, task_id, attempt, fence, agent_id, epoch
    ), moved AS (
      UPDATE task_attempts a
         SET stdout_offset = coalesce(p.stdout_next, a.stdout_offset),
             stderr_offset = coalesce(p.stderr_next, a.stderr_offset),
             stdout_end = coalesce(a.stdout_end, CASE WHEN p.stdout_eof THEN p.stdout_next END),
             stderr_end = coalesce(a.stderr_end, CASE WHEN p.stderr_eof THEN p.stderr_next END)
        FROM part p
       WHERE a.organization_id = p.organization_id AND a.task_id = p.task_id AND a.attempt = p.attempt
         AND a.fence = p.fence AND a.agent_id = p.agent_id
         AND a.outcome <> 'LEASE_LOST'
         AND coalesce(p.stdout_begin, a.stdout_offset) = a.stdout_offset
         AND coalesce(p.stderr_begin, a.stderr_offset) = a.stderr_offset
         AND coalesce(p.stdout_next <= a.stdout_end, true) AND coalesce(p.stderr_next <= a.stderr_end, true)
      RETURNING a.organization_id, a.task_id, a.attempt, a.fence, a.agent_id, p.epoch, a.stdout_offset, a.stderr_offset
    ), written AS (
      INSERT INTO task_logs (organization_id, task_id, attempt, stream, log_offset, data)
        SELECT organization_id, task_id, attempt, stream, log_offset, data
          FROM (SELECT piece.* FROM piece JOIN moved USING (organization_id, task_id, attempt, fence, agent_id, epoch)
                 ORDER BY item) piece
         WHERE length(data) > 0
    )
    SELECT p.item, coalesce(m.stdout_offset, a.stdout_offset), coalesce(m.stderr_offset, a.stderr_offset),
           a.stdout_end, a.stderr_end  -- as told before these pieces
      FROM part p
      LEFT JOIN moved m USING (organization_id, task_id, attempt, fence, agent_id)
      LEFT JOIN task_attempts a
        ON a.organization_id = p.organization_id AND a.task_id = p.task_id AND a.attempt = p.attempt
       AND a.fence = p.fence AND a.agent_id = p.agent_id AND a.outcome <> 'LEASE_LOST';
END
$$;
CALL make_system_function('append_logs(uuid[], uuid[], int[], bigint[], uuid[], smallint[], bigint[], bytea[], boolean[], bigint[])');

-- What agents answered to a Cancel (TaskCancellation.Answer): the items that are noted.
CREATE FUNCTION answer_cancels(organization_ids uuid[], task_ids uuid[], attempts int[], fences bigint[],
                               agent_ids uuid[], answers smallint[]) RETURNS TABLE (item bigint)
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
  PERFORM lock_tasks($1, $2);
  RETURN QUERY
    WITH answer AS (  -- the last of an attempt's
      SELECT DISTINCT ON (organization_id, task_id, fence) *
        FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY
                    answer (organization_id, task_id, attempt, fence, agent_id, answer, item)
       ORDER BY organization_id, task_id, fence, item DESC
    ), noted AS (
      UPDATE tasks_live t SET cancel_answer = a.answer
        FROM answer a
       WHERE t.organization_id = a.organization_id AND t.task_id = a.task_id AND t.attempt = a.attempt
         AND t.fence = a.fence AND t.agent_id = a.agent_id AND t.state = 'CANCELLING' AND a.answer > t.cancel_answer
      RETURNING a.*
    ), quiet AS (
      UPDATE task_leases l SET cancelling = false
        FROM noted n WHERE l.organization_id = n.organization_id AND l.task_id = n.task_id AND n.answer > 1
    )
    SELECT item FROM noted;
END
$$;
CALL make_system_function('answer_cancels(uuid[], uuid[], int[], bigint[], uuid[], smallint[])');

-- The leases that have lapsed, of offers and of attempts, are taken back. At most `row_limit`; how many it was.
CREATE FUNCTION lapse_leases(row_limit int) RETURNS int
  LANGUAGE plpgsql
AS $$
DECLARE
  count int;
BEGIN
  WITH lapsed AS (
    SELECT t.organization_id, t.task_id, l.attempt
      FROM task_leases l JOIN tasks_live t USING (organization_id, task_id)
     WHERE l.lease_time < now()
     LIMIT row_limit FOR UPDATE OF t, l SKIP LOCKED
  ), moved AS (
    UPDATE tasks_live t
       SET state = CASE t.state WHEN 'OFFERED' THEN 'PENDING'
                                WHEN 'CANCELLING' THEN 'CANCEL_UNCONFIRMED'
                                ELSE CASE WHEN t.start_count < t.max_attempts THEN 'PENDING' ELSE 'DEAD' END END,
           state_reason = CASE t.state WHEN 'OFFERED' THEN 'OFFER_EXPIRED' ELSE 'LEASE_LOST' END,
           state_actor = 'system',
           failure_reason = CASE t.state WHEN 'OFFERED' THEN t.failure_reason ELSE 'LEASE_LOST' END,
           failure_message = CASE t.state WHEN 'OFFERED' THEN t.failure_message
                                          ELSE 'the agent was lost while the task ran' END,
           failure_permanent = false,
           next_attempt_time = now() + CASE t.state WHEN 'OFFERED' THEN interval '0' ELSE task_backoff(t.start_count) END,
           end_time = CASE WHEN t.state = 'CANCELLING' OR t.state = 'RUNNING' AND t.start_count >= t.max_attempts
                           THEN now() END
      FROM lapsed
     WHERE t.organization_id = lapsed.organization_id AND t.task_id = lapsed.task_id
    RETURNING t.organization_id, t.task_id, lapsed.attempt
  ), noted AS (
    UPDATE task_attempts a SET end_time = now(), outcome = 'LEASE_LOST'
      FROM (SELECT a.organization_id, a.task_id, a.attempt
              FROM task_attempts a JOIN moved USING (organization_id, task_id, attempt)
             ORDER BY a.organization_id, a.task_id FOR NO KEY UPDATE OF a) m
     WHERE a.organization_id = m.organization_id AND a.task_id = m.task_id AND a.attempt = m.attempt
  ), released AS (
    DELETE FROM task_leases l USING moved m WHERE l.organization_id = m.organization_id AND l.task_id = m.task_id
  )
  SELECT count(*) INTO count FROM moved;
  RETURN count;
END
$$;

-- One step through the index for each organization that has some, however many it has.
CREATE FUNCTION organizations_with_pending_tasks() RETURNS SETOF uuid
  LANGUAGE sql STABLE
AS $$
  WITH RECURSIVE waiting AS (
    (SELECT t.organization_id FROM tasks_live t WHERE t.state = 'PENDING' ORDER BY t.organization_id LIMIT 1)
    UNION ALL
    SELECT (SELECT t.organization_id FROM tasks_live t
             WHERE t.state = 'PENDING' AND t.organization_id > w.organization_id ORDER BY t.organization_id LIMIT 1)
      FROM waiting w WHERE w.organization_id IS NOT NULL
  )
  SELECT organization_id FROM waiting WHERE organization_id IS NOT NULL
$$;

-- How far this server's clock was set, or how long nobody could look at it, since a replica last looked; NULL: neither.
-- Only a replica that has looked before can tell.
CREATE FUNCTION clock_jump(replica_id uuid, replica_lease interval) RETURNS interval
  LANGUAGE plpgsql STABLE
AS $$
DECLARE
  jump interval;
BEGIN
  SELECT now() - (max(r.lease_time) - $2) INTO jump FROM replicas r HAVING bool_or(r.replica_id = $1);
  RETURN CASE WHEN jump NOT BETWEEN interval '-5 seconds' AND interval '5 seconds' THEN jump END;
END
$$;

-- Leases are by this server's clock. After a jump it is as if no time had passed: what was held before it is held for as
-- long as it was. What was written since is told from that by its time.
CREATE FUNCTION heed_clock(replica_id uuid, replica_lease interval, lease interval) RETURNS void
  LANGUAGE plpgsql
AS $$
DECLARE
  slack constant interval := '5 seconds';
  jump interval;
BEGIN
  IF clock_jump($1, $2) IS NULL THEN
    RETURN;
  END IF;
  PERFORM FROM replicas r ORDER BY r.replica_id FOR UPDATE;
  jump := clock_jump($1, $2);
  IF jump IS NULL THEN  -- another replica has done it
    RETURN;
  END IF;
  RAISE LOG 'the clock was set, or nobody looked at it, by %: leases go on from here', jump;
  UPDATE replicas SET lease_time = lease_time + jump
   WHERE CASE WHEN jump > '0' THEN lease_time + jump <= now() + $2 + slack ELSE lease_time > now() + $2 END;
  IF jump < '0' THEN  -- else what waits waits no longer
    PERFORM FROM tasks_live t WHERE t.state = 'PENDING' AND t.next_attempt_time > now() - jump
      ORDER BY t.organization_id, t.task_id FOR NO KEY UPDATE;
    UPDATE tasks_live SET next_attempt_time = next_attempt_time + jump
     WHERE state = 'PENDING' AND next_attempt_time > now() - jump;
  END IF;
  PERFORM FROM task_leases l ORDER BY l.organization_id, l.task_id FOR UPDATE;
  UPDATE task_leases SET lease_time = lease_time + jump
   WHERE CASE WHEN jump > '0' THEN lease_time + jump <= now() + $3 + slack ELSE lease_time > now() + $3 END;
END
$$;

-- What a replica does every second, in one statement: it says that it lives, renews the leases of its agents' attempts,
-- and looks at what time has done. Rows by `what`:
--   LOST      `item` of the renewals found no lease
--   PENDING   the organization has tasks that wait
--   CANCEL    the attempt is to be told to stop
--   REPLICA   another replica lives
CREATE FUNCTION channel_tick(replica_id uuid, replica_lease interval, lease interval, organization_ids uuid[],
                             task_ids uuid[], attempts int[], fences bigint[], agent_ids uuid[], percents smallint[],
                             steps text[])
  RETURNS TABLE (what text, item bigint, organization_id uuid, task_id uuid, agent_id uuid, attempt int, fence bigint,
                 mode smallint, grace_ms bigint, other_replica_id uuid)
  LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
  PERFORM heed_clock($1, $2, $3);
  INSERT INTO replicas (replica_id, lease_time) VALUES ($1, now() + $2)
    ON CONFLICT (replica_id) DO UPDATE SET lease_time = excluded.lease_time;

  -- Replicas that died: their agents are no longer connected. Before leases are locked: a session that begins waits for
  -- those when it holds its own row.
  IF EXISTS (SELECT FROM replicas r WHERE r.lease_time < now()) THEN
    WITH dead AS (
      SELECT r.replica_id, r.lease_time FROM replicas r WHERE r.lease_time < now() FOR UPDATE SKIP LOCKED
    ), closed AS (
      UPDATE agent_sessions s SET disconnect_time = dead.lease_time, disconnect_reason = 'REPLICA_LOST'
        FROM dead WHERE s.replica_id = dead.replica_id AND s.disconnect_time IS NULL
    )
    DELETE FROM replicas r USING dead WHERE r.replica_id = dead.replica_id;
  END IF;

  PERFORM lock_leases($4, $5);
  RETURN QUERY
    WITH renewal AS (
      SELECT * FROM unnest($4, $5, $6, $7, $8, $9, $10) WITH ORDINALITY
                    renewal (organization_id, task_id, attempt, fence, agent_id, percent, step, item)
    ), renewed AS (
      UPDATE task_leases l
         SET lease_time = now() + $3, replica_id = $1, progress_percent = r.percent, progress_step = r.step
        FROM renewal r
       WHERE l.organization_id = r.organization_id AND l.task_id = r.task_id AND l.attempt = r.attempt
         AND l.fence = r.fence AND l.agent_id = r.agent_id AND l.started
      RETURNING r.item
    )
    SELECT 'LOST', r.item, r.organization_id, r.task_id, r.agent_id, r.attempt, r.fence, NULL::smallint,
           NULL::bigint, NULL::uuid
      FROM renewal r WHERE r.item NOT IN (SELECT item FROM renewed);

  PERFORM lapse_leases(1000);

  RETURN QUERY
    SELECT 'PENDING', NULL::bigint, w, NULL::uuid, NULL::uuid, NULL::int, NULL::bigint, NULL::smallint, NULL::bigint,
           NULL::uuid
      FROM organizations_with_pending_tasks() w;

  RETURN QUERY SELECT c.* FROM find_cancels($1, NULL) c;

  RETURN QUERY
    SELECT 'REPLICA', NULL::bigint, NULL::uuid, NULL::uuid, NULL::uuid, NULL::int, NULL::bigint, NULL::smallint,
           NULL::bigint, r.replica_id
      FROM replicas r WHERE r.replica_id <> $1 AND r.lease_time > now();
END
$$;

-- The attempts of a replica's agents that are to be told to stop, of some organizations or (NULL) of all.
CREATE FUNCTION find_cancels(replica_id uuid, organization_ids uuid[])
  RETURNS TABLE (what text, item bigint, organization_id uuid, task_id uuid, agent_id uuid, attempt int, fence bigint,
                 mode smallint, grace_ms bigint, other_replica_id uuid)
  LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT 'CANCEL', NULL::bigint, l.organization_id, l.task_id, l.agent_id, l.attempt, l.fence, t.cancel_mode,
           (extract(epoch FROM t.cancel_grace) * 1000)::bigint, NULL::uuid
      FROM task_leases l JOIN tasks_live t USING (organization_id, task_id)
     WHERE l.cancelling AND l.replica_id = $1 AND ($2 IS NULL OR l.organization_id = ANY ($2));
END
$$;
CALL make_system_function('find_cancels(uuid, uuid[])');
CALL make_system_function('lapse_leases(int)');
CALL make_system_function('clock_jump(uuid, interval)');
CALL make_system_function('heed_clock(uuid, interval, interval)');
REVOKE ALL ON FUNCTION lapse_leases(int), clock_jump(uuid, interval), heed_clock(uuid, interval, interval) FROM genie_app;
CALL make_system_function('channel_tick(uuid, interval, interval, uuid[], uuid[], int[], bigint[], uuid[], smallint[], text[])');

-- A replica that stops: what it held is no longer held.
CREATE FUNCTION leave_replica(replica_id uuid) RETURNS void
  LANGUAGE sql
AS $$
  UPDATE agent_sessions s SET disconnect_time = now(), disconnect_reason = 'DRAINED'
   WHERE s.replica_id = $1 AND s.disconnect_time IS NULL;
  DELETE FROM replicas r WHERE r.replica_id = $1;
$$;
CALL make_system_function('leave_replica(uuid)');

-- Sessions that a replica holds, checked: the items whose session is no longer the agent's last, whose agent or key has
-- ended, which another replica has taken for lost (`closed`), or for which a key waits to be handed over.
CREATE FUNCTION check_sessions(organization_ids uuid[], agent_ids uuid[], epochs bigint[], agent_key_ids uuid[])
  RETURNS TABLE (item bigint, current_epoch bigint, ended boolean, closed boolean, key_offered boolean)
  LANGUAGE plpgsql STABLE
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    SELECT item, current_epoch, ended, closed, key_offered FROM (
      SELECT held.item, held.session_epoch, coalesce(s.session_epoch, 0) AS current_epoch,
             a.agent_id IS NULL OR k.agent_key_id IS NULL OR coalesce(k.expire_time <= now(), false)
               OR o.delete_time IS NOT NULL AS ended,
             s.disconnect_time IS NOT NULL AS closed, coalesce(a.key_offer_time IS NOT NULL, false) AS key_offered
        FROM unnest($1, $2, $3, $4) WITH ORDINALITY held (organization_id, agent_id, session_epoch, agent_key_id, item)
        LEFT JOIN agents a USING (organization_id, agent_id)
        LEFT JOIN agent_sessions s USING (organization_id, agent_id)
        LEFT JOIN agent_keys k USING (organization_id, agent_id, agent_key_id)
        LEFT JOIN organizations o USING (organization_id)
    ) held
     WHERE current_epoch <> session_epoch OR ended OR closed OR key_offered;
END
$$;
CALL make_system_function('check_sessions(uuid[], uuid[], bigint[], uuid[])');

-- A key for an agent that is to get one in its session: it takes the place of one that was offered and never used. No
-- row: none is wanted any more.
CREATE FUNCTION offer_key(organization_id uuid, agent_id uuid, session_epoch bigint, agent_key_id uuid,
                          key_prefix text, secret_sha256 bytea) RETURNS TABLE (overlap_ms bigint)
  LANGUAGE sql
AS $$
  WITH wanted AS (
    SELECT a.key_offer_overlap AS overlap
      FROM agents a JOIN agent_sessions s USING (organization_id, agent_id)
     WHERE a.organization_id = $1 AND a.agent_id = $2 AND a.key_offer_time IS NOT NULL AND s.session_epoch = $3
       FOR NO KEY UPDATE OF a
  ), void AS (
    DELETE FROM agent_keys k USING wanted WHERE k.organization_id = $1 AND k.agent_id = $2 AND k.offered
  ), made AS (
    INSERT INTO agent_keys (organization_id, agent_id, agent_key_id, key_prefix, secret_sha256, offered)
      SELECT $1, $2, $4, $5, $6, true FROM wanted
    RETURNING 1
  ), found AS (
    INSERT INTO agent_key_prefixes (key_prefix, organization_id, agent_id, agent_key_id) SELECT $5, $1, $2, $4 FROM made
  )
  SELECT (extract(epoch FROM overlap) * 1000)::bigint FROM wanted
$$;

-- Makes the partitions of a table for this month or day and `ahead` more that it does not have. Rows of such a time
-- that the default partition holds move into it. How many it made.
CREATE FUNCTION make_time_partitions(parent regclass, key name, unit text, ahead int) RETURNS int
  LANGUAGE plpgsql SET timezone = 'UTC'
AS $$
DECLARE
  step interval := '1 ' || unit;
  low timestamptz;
  name text;
  made int := 0;
BEGIN
  FOR low IN SELECT generate_series(date_trunc(unit, now()), now() + step * ahead, step) LOOP
    name := format('%s_%s', parent, to_char(low, CASE unit WHEN 'day' THEN 'YYYY_MM_DD' ELSE 'YYYY_MM' END));
    CONTINUE WHEN to_regclass(name) IS NOT NULL;
    EXECUTE format('CREATE TABLE %I (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)', name, parent);
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('WITH moved AS (DELETE FROM %1$s_default WHERE %2$I >= %3$L AND %2$I < %4$L RETURNING *)
                    INSERT INTO %5$I SELECT * FROM moved', parent, key, low, low + step, name);
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, low, low + step);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    made := made + 1;
  END LOOP;
  RETURN made;
END
$$;
CALL make_system_function('make_time_partitions(regclass, name, text, int)');
REVOKE ALL ON FUNCTION make_time_partitions(regclass, name, text, int) FROM genie_app;
DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['tasks', 'tasks_live', 'tasks_default', 'task_logs', 'task_logs_default', 'task_events',
                              'task_events_default'] LOOP
    EXECUTE format('ALTER TABLE %I OWNER TO genie_system', name);
    IF name LIKE '%_default' THEN
      CALL allow_system(name::regclass, 'SELECT, INSERT, UPDATE, DELETE');
    END IF;
  END LOOP;
END
$$;

-- Logs of days that are older, to their last moment, go, a day at a time. How many days it were.
CREATE FUNCTION drop_old_logs(older interval) RETURNS int
  LANGUAGE plpgsql SET timezone = 'UTC' SET lock_timeout = '1s'
AS $$
DECLARE
  name text;
  dropped int := 0;
BEGIN
  FOR name IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'task_logs'::regclass AND c.relname <> 'task_logs_default'
                 AND to_date(right(c.relname, 10), 'YYYY_MM_DD') + 1 <= now() - older LOOP
    BEGIN
      EXECUTE format('DROP TABLE %I', name);
      dropped := dropped + 1;
    EXCEPTION WHEN lock_not_available THEN
      NULL;  -- somebody reads; the next sweep tries again
    END;
  END LOOP;
  RETURN dropped;
END
$$;
CALL make_system_function('drop_old_logs(interval)');
REVOKE ALL ON FUNCTION drop_old_logs(interval) FROM genie_app;

CREATE INDEX tasks_expiring ON tasks (organization_id, expire_time) WHERE state = 'PENDING';
CREATE INDEX tasks_ended ON tasks (organization_id, end_time) WHERE end_time IS NOT NULL AND filed_time = 'infinity';

CREATE INDEX agent_keys_ending ON agent_keys (organization_id, expire_time) WHERE expire_time IS NOT NULL;

-- A slice of the organizations, another one in each turn: what has time is done for some of them at once, and costs the
-- same however many there are.
CREATE FUNCTION swept_organizations(size int, turn bigint) RETURNS TABLE (organization_id uuid)
  LANGUAGE sql STABLE
AS $$
  SELECT o.organization_id FROM organizations o ORDER BY o.organization_id LIMIT size
  OFFSET size * (turn % (SELECT greatest(ceil(count(*)::float / size), 1)::bigint FROM organizations))
$$;

-- What nobody needs any more: keys that have ended, but for an agent's newest, and attempts and journals of tasks that
-- were filed 30 days ago, whose logs are gone. Only such tasks are looked at as were made before that: their ids tell.
CREATE FUNCTION sweep_remains(row_limit int, organization_ids uuid[]) RETURNS void
  LANGUAGE plpgsql
AS $$
DECLARE
  long_ago uuid := (lpad(to_hex((extract(epoch FROM now() - interval '30 days') * 1000)::bigint), 12, '0')
                    || repeat('0', 20))::uuid;
BEGIN
  DELETE FROM agent_keys k
   WHERE k.organization_id = ANY (organization_ids) AND k.expire_time <= now()
     AND EXISTS (SELECT FROM agent_keys n WHERE n.organization_id = k.organization_id AND n.agent_id = k.agent_id
                    AND n.agent_key_id > k.agent_key_id);

  WITH remains AS (
    SELECT a.organization_id, a.task_id, a.attempt
      FROM unnest(organization_ids) o
      JOIN LATERAL (SELECT * FROM task_attempts a
                     WHERE a.organization_id = o AND a.task_id < long_ago
                       AND NOT EXISTS (SELECT FROM tasks t
                                        WHERE t.organization_id = a.organization_id AND t.task_id = a.task_id
                                          AND t.filed_time >= now() - interval '30 days')
                     LIMIT row_limit) a ON true
     LIMIT row_limit
  ), effects AS (
    DELETE FROM task_effects e USING (SELECT DISTINCT r.organization_id, r.task_id FROM remains r) r
     WHERE e.organization_id = r.organization_id AND e.task_id = r.task_id
  )
  DELETE FROM task_attempts a USING remains r
   WHERE a.organization_id = r.organization_id AND a.task_id = r.task_id AND a.attempt = r.attempt;
END
$$;
CALL make_system_function('sweep_remains(int, uuid[])');
REVOKE ALL ON FUNCTION sweep_remains(int, uuid[]) FROM genie_app;

-- Tasks whose time to live has passed are DEAD; those of some organizations that ended a week ago are filed.
CREATE FUNCTION sweep_tasks(row_limit int, organization_ids uuid[], OUT expired int, OUT filed int)
  LANGUAGE plpgsql
AS $$
BEGIN
  WITH due AS (
    SELECT t.organization_id, t.task_id
      FROM organizations_with_pending_tasks() w
      JOIN tasks_live t ON t.organization_id = w AND t.state = 'PENDING' AND t.expire_time <= now()
     LIMIT row_limit FOR UPDATE OF t SKIP LOCKED
  )
  UPDATE tasks_live t
     SET state = 'DEAD', state_reason = 'TIME_TO_LIVE', state_actor = 'system', end_time = now(),
         failure_reason = CASE t.failure_reason WHEN '' THEN 'TIME_TO_LIVE' ELSE t.failure_reason END,
         failure_message = CASE t.failure_reason WHEN '' THEN 'no agent has started it in time' ELSE t.failure_message END
    FROM due WHERE t.organization_id = due.organization_id AND t.task_id = due.task_id;
  GET DIAGNOSTICS expired = ROW_COUNT;

  WITH due AS (
    SELECT t.organization_id, t.task_id
      FROM unnest(organization_ids) o
      JOIN LATERAL (SELECT * FROM tasks_live t
                     WHERE t.organization_id = o AND t.filed_time = 'infinity'
                       AND t.end_time < now() - interval '7 days'
                     LIMIT row_limit FOR UPDATE SKIP LOCKED) t ON true
     LIMIT row_limit
  )
  UPDATE tasks t SET filed_time = t.end_time
    FROM due WHERE t.organization_id = due.organization_id AND t.task_id = due.task_id AND t.filed_time = 'infinity';
  GET DIAGNOSTICS filed = ROW_COUNT;
END
$$;
CALL make_system_function('sweep_tasks(int, uuid[])');
REVOKE ALL ON FUNCTION sweep_tasks(int, uuid[]) FROM genie_app;

-- As before, with tasks.
CREATE OR REPLACE FUNCTION sweep(row_limit int, OUT expired int, OUT abandoned int, OUT purged_rows bigint, OUT purged int,
                                 OUT partitions int)
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
DECLARE
  collection text[];  -- a table and its id
  doomed uuid;
  removed bigint;
  swept uuid[] := ARRAY(SELECT swept_organizations(1000, floor(extract(epoch FROM now()) / 10)::bigint));
BEGIN
  PERFORM set_config('genie.caller', 'system', true), set_config('genie.method', '', true);
  expired := 0;
  abandoned := 0;
  purged_rows := 0;
  purged := 0;
  partitions := 0;
  -- One replica at a time; another one sweeps for us now.
  IF NOT pg_try_advisory_xact_lock(hashtext('genie.sweep')) THEN
    RETURN;
  END IF;

  WITH due AS (
    SELECT f.organization_id, f.finding_id FROM findings f
     WHERE f.state = 'ACCEPTED_RISK' AND f.acceptance_expire_time <= now()
     LIMIT row_limit FOR UPDATE SKIP LOCKED
  )
  UPDATE findings f SET state = 'OPEN' FROM due
   WHERE f.organization_id = due.organization_id AND f.finding_id = due.finding_id;
  GET DIAGNOSTICS expired = ROW_COUNT;

  WITH due AS MATERIALIZED (
    SELECT s.organization_id, s.scan_id FROM scans s LEFT JOIN import_runs r USING (organization_id, scan_id)
     WHERE s.state = 'RUNNING' AND coalesce(r.lease_time, s.create_time) < now() - interval '10 minutes'
     LIMIT row_limit FOR UPDATE OF s SKIP LOCKED
  )
  SELECT count(*) INTO abandoned
    FROM (SELECT fail_scan(organization_id, scan_id, 'abandoned') FROM due OFFSET 0) failed;

  PERFORM sweep_tasks(row_limit, swept), sweep_remains(row_limit, swept);

  -- The data keys first, all of them, so that no credential can be opened from this moment on; then table by table.
  DELETE FROM organization_keys k USING organizations o
   WHERE o.delete_time IS NOT NULL AND o.purge_time <= now() AND k.organization_id = o.organization_id;
  SELECT o.organization_id INTO doomed
    FROM organizations o WHERE o.delete_time IS NOT NULL AND o.purge_time <= now() LIMIT 1;
  IF FOUND THEN
    FOREACH collection SLICE 1 IN ARRAY ARRAY[['findings', 'finding_id'], ['resources', 'resource_id'],
        ['scans', 'scan_id'], ['checks', 'check_id'], ['task_logs', 'task_id'], ['task_leases', 'task_id'],
        ['task_attempts', 'task_id'], ['task_effects', 'task_id'], ['tasks', 'task_id'], ['task_events', 'task_id'],
        ['agent_events', 'agent_id'], ['audit_events', 'audit_event_id']] LOOP
      EXECUTE format('DELETE FROM %1$I WHERE organization_id = $1 AND %2$I IN
                        (SELECT %2$I FROM %1$I WHERE organization_id = $1 LIMIT $2)', collection[1], collection[2])
        USING doomed, row_limit - purged_rows;
      GET DIAGNOSTICS removed = ROW_COUNT;
      purged_rows := purged_rows + removed;
    END LOOP;
    IF purged_rows < row_limit THEN
      DELETE FROM organizations o WHERE o.organization_id = doomed;  -- what is left goes with it
      purged := 1;
    END IF;
  END IF;

  partitions := make_partitions('finding_events', 2) + make_partitions('audit_events', 2)
                + make_time_partitions('agent_events', 'event_time', 'month', 2)
                + make_time_partitions('task_events', 'event_time', 'month', 2)
                + make_time_partitions('tasks', 'filed_time', 'month', 2)
                + make_time_partitions('task_logs', 'log_time', 'day', 2);
  PERFORM drop_old_logs('30 days');
END
$$;

SELECT make_time_partitions('agent_events', 'event_time', 'month', 2),
       make_time_partitions('task_events', 'event_time', 'month', 2),
       make_time_partitions('tasks', 'filed_time', 'month', 2),
       make_time_partitions('task_logs', 'log_time', 'day', 2);
