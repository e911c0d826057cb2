-- Finds sessions of a replica that began of late.
SELECT organization_id, agent_id, session_epoch FROM find_new_sessions(:replica_id::uuid);
