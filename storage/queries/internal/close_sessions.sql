-- Notes that sessions have ended.
SELECT close_sessions(:items__organization_id, :items__agent_id, :items__session_epoch, :items__reason);
