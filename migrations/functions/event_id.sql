-- The id of a change: account, version, and epoch in base 36. Unique permanently. The same as eventId() in src/shared/change.ts.
CREATE OR REPLACE FUNCTION event_id(account_id text, version bigint, epoch bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT account_id || ':' || version::text || ':' || epoch_digits(epoch)
$$;
