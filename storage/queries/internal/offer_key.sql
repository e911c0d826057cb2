-- Makes a key for an agent that is to get one in its session. No row: none is wanted any more.
SELECT overlap_ms FROM offer_key(:organization_id, :agent_id::uuid, :session_epoch, :agent_key_id::uuid, :key_prefix,
                                 :secret_sha256);
