-- Starts an agent's session. No row: the agent is gone.
SELECT superseded, session_epoch, key_offered, decisions::int[] AS decisions, stdout_offsets, stderr_offsets
  FROM open_session(:organization_id, :agent_id::uuid, :agent_key_id::uuid, :replica_id::uuid, :instance_id::uuid,
                    :last_epoch, :version, :labels::jsonb, :kinds::int[]::smallint[], :running__task_id::uuid[],
                    :running__attempt::int[], :running__fence::int8[], :lease);
