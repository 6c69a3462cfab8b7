-- Truncates a partition of the outbox that writers have left, if it holds exactly the rows that the
-- relay found to be done.
--
--   in   p_partition  outbox_even or outbox_odd
--        p_first      lowest and highest position that the relay saw
--        p_last
--   returns true if it is now empty; false if it holds anything else, or writers are back
--
-- One statement, so that a frozen process cannot keep the lock. A waiting TRUNCATE blocks every
-- session after it: it gives up soon (lock_not_available), and the relay retries later.
CREATE OR REPLACE FUNCTION truncate_outbox_partition(p_partition text, p_first bigint, p_last bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '40ms' AS $$
DECLARE
  v_parity CONSTANT bigint := CASE p_partition WHEN 'outbox_even' THEN 0 WHEN 'outbox_odd' THEN 1 END;
  v_is_as_seen boolean;
BEGIN
  EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', p_partition);
  EXECUTE format('SELECT min(position) = $1 AND max(position) = $2 FROM %I', p_partition) INTO v_is_as_seen USING p_first, p_last;
  IF v_is_as_seen IS NOT TRUE OR (SELECT (last_value >> 26) & 1 = v_parity FROM outbox_position) THEN RETURN false; END IF;
  EXECUTE format('TRUNCATE %I', p_partition);
  RETURN true;
END
$$;
