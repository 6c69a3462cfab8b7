-- The id of a change: account, version, and epoch in base 36. Unique permanently. The same as eventId() in src/shared/change.ts.
CREATE OR REPLACE FUNCTION event_id(account_id text, version bigint, epoch bigint) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
  v_digits text := '';
  v_rest bigint := epoch;
BEGIN
  LOOP
    v_digits := substr('0123456789abcdefghijklmnopqrstuvwxyz', (v_rest % 36)::integer + 1, 1) || v_digits;
    v_rest := v_rest / 36;
    EXIT WHEN v_rest = 0;
  END LOOP;
  RETURN account_id || ':' || version || ':' || v_digits;
END
$$;
