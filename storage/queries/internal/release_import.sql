-- Lets the lease of an import lapse: its caller has gone.
UPDATE import_runs SET lease_time = now() WHERE organization_id = :organization_id AND scan_id = :scan_id;
