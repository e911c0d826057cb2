-- Notes what was answered to Cancels.
SELECT item FROM answer_cancels(:items__attempt__organization_id, :items__attempt__task_id, :items__attempt__attempt,
                                :items__attempt__fence, :items__attempt__agent_id, :items__answer::int[]::smallint[]);
