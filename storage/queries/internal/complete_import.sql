-- Ends an import: its results take effect, all at once.
SELECT ended.refusal, ended.refusal_next_record, message.*
  FROM complete_scan(:organization_id, :scan_id, :record_count, :interrupted) ended
  LEFT JOIN LATERAL scan_message(ended.scan, :organization_slug) message ON true;
