-- Appends pieces of logs.
SELECT item, stdout_offset, stderr_offset, stdout_end, stderr_end
  FROM append_logs(:items__attempt__organization_id, :items__attempt__task_id, :items__attempt__attempt,
                   :items__attempt__fence, :items__attempt__agent_id, :items__stream::int[]::smallint[],
                   :items__log_offset, :items__data, :items__eof, :items__session_epoch);
