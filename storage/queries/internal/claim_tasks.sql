-- Offers waiting tasks to sessions that can take some.
SELECT item, kind, task_id, organization_slug, attempt, fence, payload, idempotency_key, time_to_live_ms, effect_keys,
       effect_references, effect_attempts
  FROM claim_tasks(:replica_id::uuid, :offer_limit, :items__organization_id, :items__agent_id, :items__session_epoch,
                   :items__kind::int[]::smallint[], :items__free);
