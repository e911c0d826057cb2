-- Tells other replicas what has changed.
SELECT pg_notify(channel, :payload) FROM unnest(:channels::text[]) channel;
