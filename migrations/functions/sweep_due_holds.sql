-- Expires due holds on idle accounts: busy accounts expire their own, see expire_due_holds.
--
--   p_holds_max   how many at most, so that no statement is long
--   returns       how many expired
CREATE OR REPLACE FUNCTION sweep_due_holds(p_holds_max integer) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
  v_looks_max CONSTANT integer := 10;
  v_busy_ids text[] := '{}'; -- accounts locked by another session, perhaps for long: left out of the next look
  v_account_ids text[];
  v_locked_ids text[];
  v_found integer;
  v_expired integer := 0;
BEGIN
  FOR v_look IN 1..v_looks_max LOOP
    SELECT array_agg(DISTINCT due.account_id), count(*) INTO v_account_ids, v_found
    FROM (
      SELECT hold.account_id FROM hold
      -- The clock is read in a subselect: a volatile function cannot be an index condition, and
      -- every active hold would be read.
      WHERE hold.remaining > 0 AND hold.expires_at <= (SELECT clock_timestamp()) AND hold.account_id <> ALL (v_busy_ids)
      ORDER BY hold.expires_at LIMIT p_holds_max
    ) due;
    EXIT WHEN v_found = 0;
    -- A separate statement: expire_due_holds sees what the previous holder of a lock committed.
    SELECT array_agg(locked.account_id) INTO v_locked_ids
    FROM (
      SELECT account.account_id FROM account WHERE account.account_id = ANY (v_account_ids)
      ORDER BY account.account_id FOR NO KEY UPDATE SKIP LOCKED
    ) locked;
    IF v_locked_ids IS NOT NULL THEN
      v_expired := v_expired + (
        SELECT done.expired
        FROM expire_due_holds(v_locked_ids, date_trunc('milliseconds', clock_timestamp()), p_holds_max - v_expired) AS done
      );
    END IF;
    EXIT WHEN v_expired >= p_holds_max OR v_found < p_holds_max;
    v_busy_ids := v_busy_ids || ARRAY(SELECT unnest(v_account_ids) EXCEPT SELECT unnest(v_locked_ids));
  END LOOP;
  RETURN v_expired;
END
$$;
