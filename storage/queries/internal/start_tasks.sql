-- Starts attempts whose offers were taken.
SELECT item, cancelling
  FROM start_tasks(:replica_id::uuid, :lease, :items__organization_id, :items__task_id, :items__attempt, :items__fence,
                   :items__agent_id);
