-- Takes back offers that were not taken.
SELECT item FROM reject_tasks(:items__attempt__organization_id, :items__attempt__task_id, :items__attempt__attempt,
                              :items__attempt__fence, :items__attempt__agent_id, :items__reason, :items__message,
                              :items__permanent, :items__after);
