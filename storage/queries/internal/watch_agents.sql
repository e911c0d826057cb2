-- Reads on in the events of agents, up to the oldest transaction that still runs. The first row tells how far that is.
WITH bound AS (
  SELECT pg_snapshot_xmin(pg_current_snapshot()) AS position
), event AS (
  SELECT e.* FROM bound, agent_events e
   WHERE e.organization_id = :organization_id
     AND (e.position, e.sequence) > (:position::text::xid8, :sequence::int8) AND e.position < bound.position
   ORDER BY e.position, e.sequence LIMIT 200
)
SELECT bound.position::text AS bound,
       EXISTS (SELECT FROM agent_events e WHERE e.organization_id = :organization_id AND e.position >= bound.position)
         AS more_comes,
       event.position::text AS position, event.sequence, event.agent_id, event.event, event.reason, event.event_time
  FROM bound LEFT JOIN event ON true
 ORDER BY event.position, event.sequence;
