-- Truncates the older partition of idempotency_key when the other has been written to for p_kept.
-- True when it did. Another session with a lock on the table (a backup) delays it: it fails with
-- lock_not_available and is retried later, because a waiting TRUNCATE blocks every session after
-- it.
CREATE OR REPLACE FUNCTION expire_idempotency_keys(p_kept interval) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET lock_timeout = '40ms' AS $$
DECLARE
  v_written smallint;
BEGIN
  SELECT partition INTO v_written FROM idempotency_rotation WHERE since <= clock_timestamp() - p_kept FOR UPDATE SKIP LOCKED;
  IF v_written IS NULL THEN RETURN false; END IF;
  -- Every batch holds a lock on both partitions from before its snapshot to its end, so none is in
  -- flight here, and the next one sees the change: nothing more is written to the old partition.
  IF v_written = 0 THEN TRUNCATE idempotency_key_odd; ELSE TRUNCATE idempotency_key_even; END IF;
  UPDATE idempotency_rotation SET partition = 1 - v_written, since = clock_timestamp();
  RETURN true;
END
$$;
