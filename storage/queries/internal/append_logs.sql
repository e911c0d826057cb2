-- Appends pieces of logs.
SELECT organization_id, task_id, attempt, agent_id, stdout_offset, stderr_offset
  FROM append_logs(:items__attempt__organization_id, :items__attempt__task_id, :items__attempt__attempt,
                   :items__attempt__fence, :items__attempt__agent_id, :items__stream::int[]::smallint[],
                   :items__log_offset, :items__data, :items__eof);
