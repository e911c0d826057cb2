-- Finds a person's membership; binds an invitation of the verified address at the first call.
SELECT organization_id, organization_deleted, role FROM find_member(:organization_slug, :subject, :email);
