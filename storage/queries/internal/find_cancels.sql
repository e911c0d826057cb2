-- Finds attempts that are to be told to stop.
SELECT what, item, organization_id, task_id, agent_id, attempt, fence, mode, grace_ms, other_replica_id
  FROM find_cancels(:replica_id::uuid, :organization_ids);
