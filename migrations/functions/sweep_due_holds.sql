-- Expires holds that are due on accounts that nobody changes now: what is busy expires its own, see expire_due_holds.
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
  v_locks_tried CONSTANT integer := 10; -- each look passes over the due holds of all accounts that were locked before
  v_busy_ids text[] := '{}';
  v_account_ids text[];
  v_locked_ids text[];
BEGIN
  FOR v_try IN 1..v_locks_tried LOOP
    SELECT array_agg(DISTINCT due.account_id) INTO v_account_ids
    FROM (
      SELECT hold.account_id FROM hold
      -- The clock in a SELECT of its own: as a volatile function it is no condition of the index, and every active hold would be read.
      WHERE hold.remaining > 0 AND hold.expires_at <= (SELECT clock_timestamp()) AND hold.account_id <> ALL (v_busy_ids)
      ORDER BY hold.expires_at LIMIT p_holds_max
    ) due;
    IF v_account_ids IS NULL THEN RETURN 0; END IF;
    -- A statement of its own: expire_due_holds sees what the previous holder of a lock committed.
    SELECT array_agg(locked.account_id) INTO v_locked_ids
    FROM (
      SELECT account.account_id FROM account WHERE account.account_id = ANY (v_account_ids)
      ORDER BY account.account_id FOR NO KEY UPDATE SKIP LOCKED
    ) locked;
    EXIT WHEN v_locked_ids IS NOT NULL;
    -- Another session has locked all of them, perhaps for long: the holds of other accounts come after a thousand of theirs.
    v_busy_ids := v_busy_ids || v_account_ids;
  END LOOP;
  IF v_locked_ids IS NULL THEN RETURN 0; END IF;
  RETURN (SELECT done.expired FROM expire_due_holds(v_locked_ids, date_trunc('milliseconds', clock_timestamp()), p_holds_max) AS done);
END
$$;
