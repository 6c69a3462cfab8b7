-- Drops the older partition of idempotency_key when the other has been written to for p_kept. True when it did. Another session
-- that holds a lock on the table (a backup) puts it off: lock_not_available, to be tried again later, since a TRUNCATE that
-- waits holds up all who come after it.
CREATE OR REPLACE FUNCTION expire_idempotency_keys(p_kept interval) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET lock_timeout = '40ms' AS $$
DECLARE
  v_written smallint;
BEGIN
  SELECT partition INTO v_written FROM idempotency_rotation WHERE since <= clock_timestamp() - p_kept FOR UPDATE SKIP LOCKED;
  IF v_written IS NULL THEN RETURN false; END IF;
  -- Every batch holds a lock on both partitions from before its snapshot to its end, so none is in flight here, and the
  -- next one sees the change: after it nothing is written to what was written to before.
  IF v_written = 0 THEN TRUNCATE idempotency_key_odd; ELSE TRUNCATE idempotency_key_even; END IF;
  UPDATE idempotency_rotation SET partition = 1 - v_written, since = clock_timestamp();
  RETURN true;
END
$$;
