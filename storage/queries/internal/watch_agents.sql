-- Reads on in the events of agents, up to the oldest transaction that still runs. The first row tells how far that is,
-- and the last event before it.
WITH bound AS (
  SELECT pg_snapshot_xmin(pg_current_snapshot()) AS position
), last AS (
  SELECT e.position, e.sequence FROM bound, agent_events e
   WHERE e.organization_id = :organization_id AND e.position < bound.position
   ORDER BY e.position DESC, e.sequence DESC LIMIT 1
), event AS (
  SELECT e.* FROM bound, agent_events e
   WHERE e.organization_id = :organization_id
     AND (e.position, e.sequence) > (:position::text::xid8, :sequence::text::int8) AND e.position < bound.position
   ORDER BY e.position, e.sequence LIMIT 60
)
SELECT bound.position::text AS bound, coalesce(last.position::text, '0') AS last_position,
       coalesce(last.sequence, 0) AS last_sequence,
       EXISTS (SELECT FROM agent_events e WHERE e.organization_id = :organization_id AND e.position >= bound.position)
         AS more_comes,
       event.position::text AS position, event.sequence, event.agent_id, event.event, event.reason, event.event_time
  FROM bound LEFT JOIN last ON true LEFT JOIN event ON true
 ORDER BY event.position, event.sequence;
