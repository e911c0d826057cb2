-- Starts an import, or goes on with the one of the same request id. No row: no such account.
SELECT refusal, scan, scan_id, next_record, account_uid, provider
  FROM start_import(:organization_id, :organization_slug, :cloud_account_id, :new_id, :caller_id, :scanner,
                    :scanner_version, :scan_time, :request_id, :coverage__extent, :coverage__services,
                    :coverage__regions);
