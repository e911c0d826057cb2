-- Writes down that keys were used today.
SELECT touch_api_keys AS touched FROM touch_api_keys(:organization_ids::text::uuid[], :api_key_ids::text::uuid[]);
