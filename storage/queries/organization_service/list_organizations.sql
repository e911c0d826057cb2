-- ListOrganizations: what the caller may see, by slug. An API key sees the organization that is its own.
SELECT 'organizations/' || slug AS name, organization_id AS uid, display_name,
       CASE WHEN delete_time IS NULL THEN 'ACTIVE' ELSE 'DELETED' END AS state, create_time, update_time, delete_time,
       purge_time, version::text AS etag,
       slug AS after_slug
  FROM list_organizations(:caller_kind, :caller_subject, :caller_email, :organization_id, :show_deleted,
                          coalesce(:after_slug, ''), :page_limit);
