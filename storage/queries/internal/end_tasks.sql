-- Notes how attempts ended.
SELECT item, status
  FROM end_tasks(:items__attempt__organization_id, :items__attempt__task_id, :items__attempt__attempt,
                 :items__attempt__fence, :items__attempt__agent_id, :items__result_id, :items__status::int[]::smallint[],
                 :items__reason, :items__message, :items__permanent, :items__after, :items__outputs, :items__stdout_end,
                 :items__stderr_end);
