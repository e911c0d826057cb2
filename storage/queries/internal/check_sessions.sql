-- Finds what has changed about sessions that a replica holds.
SELECT item, current_epoch, ended, closed, key_offered
  FROM check_sessions(:items__organization_id, :items__agent_id, :items__session_epoch, :items__agent_key_id);
