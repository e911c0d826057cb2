-- A replica's second.
SELECT what, item, organization_id, task_id, agent_id, attempt, fence, mode, grace_ms, other_replica_id
  FROM channel_tick(:replica_id::uuid, :replica_lease, :lease, :items__attempt__organization_id,
                    :items__attempt__task_id, :items__attempt__attempt, :items__attempt__fence,
                    :items__attempt__agent_id, :items__percent::int[]::smallint[], :items__step);
