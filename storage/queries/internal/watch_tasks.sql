-- Reads on in the events of tasks, up to the oldest transaction that still runs. The first row tells how far that is.
WITH bound AS (
  SELECT pg_snapshot_xmin(pg_current_snapshot()) AS position
), event AS (
  SELECT e.* FROM bound, task_events e
   WHERE e.organization_id = :organization_id
     AND (e.position, e.sequence) > (:position::text::xid8, :sequence::int8) AND e.position < bound.position
     AND (:task_id::uuid IS NULL OR e.task_id = :task_id::uuid)
   ORDER BY e.position, e.sequence LIMIT 200
)
SELECT bound.position::text AS bound,
       EXISTS (SELECT FROM task_events e WHERE e.organization_id = :organization_id AND e.position >= bound.position)
         AS more_comes,
       event.position::text AS position, event.sequence, event.task_id, event.from_state, event.to_state,
       event.attempt, event.reason, event.actor, event.event_time
  FROM bound LEFT JOIN event ON true
 ORDER BY event.position, event.sequence;
