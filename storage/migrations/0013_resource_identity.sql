-- The index that keeps a resource's identity unique serves nothing else.

-- It began with the columns of the foreign key from findings. Where an account has no more resources than there are
-- accounts, the planner takes the two indexes for equally good, and the one made later wins: each new finding then read
-- all resources of its account. Nothing looks a resource up by its identity; an index that is partial, by a condition
-- that always holds, no other statement can be given.
CREATE UNIQUE INDEX resources_identity ON resources (organization_id, cloud_account_id, identity)
  WHERE identity IS NOT NULL;
ALTER TABLE resources DROP CONSTRAINT resources_organization_id_cloud_account_id_identity_key;
