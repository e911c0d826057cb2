-- Notes what attempts have made outside.
SELECT item FROM note_effects(:items__attempt__organization_id, :items__attempt__task_id, :items__attempt__attempt,
                              :items__attempt__fence, :items__attempt__agent_id, :items__key, :items__reference);
