-- Finds the organization of a slug.
SELECT organization_id, organization_deleted FROM find_organization(:organization_slug);
