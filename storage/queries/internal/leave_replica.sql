-- Ends a replica.
SELECT leave_replica(:replica_id::uuid);
