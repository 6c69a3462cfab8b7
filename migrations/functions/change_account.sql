-- Changes limits or status of an account, in one statement.
--
--   p_change   what to change: any of overdraftLimit, maxBalance (null: no limit), status
--   outcome    changed | unchanged (everything already had these values: no version, no event)
--              | overloaded (more holds are due than one statement expires: those that it did stay so)
--              | account_not_found | account_closed | overdraft_limit_too_low | account_not_empty
--   account    as it is now; null if there is none
CREATE OR REPLACE FUNCTION change_account(
  p_account_id text, p_change jsonb, p_actor text, p_traceparent text, OUT outcome text, OUT account account
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  v_overdraft_limit bigint;
  v_max_balance bigint;
  v_status text;
  v_previous_epoch bigint;
  v_now timestamptz;
BEGIN
  -- A separate statement: the next one sees what the previous holder of the lock committed.
  SELECT locked.* INTO account FROM account locked WHERE locked.account_id = p_account_id FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    outcome := 'account_not_found';
    RETURN;
  END IF;
  -- Expired amounts are no longer held. This does not change limits and status, which are checked
  -- below.
  v_now := date_trunc('milliseconds', clock_timestamp());
  IF account.held > 0 THEN
    IF (SELECT done.more_due FROM expire_due_holds(ARRAY[p_account_id], v_now, 1000) AS done) <> '{}' THEN
      outcome := 'overloaded';
      RETURN;
    END IF;
    SELECT locked.* INTO account FROM account locked WHERE locked.account_id = p_account_id;
  END IF;
  v_overdraft_limit := coalesce((p_change ->> 'overdraftLimit')::bigint, account.overdraft_limit);
  v_max_balance := CASE WHEN p_change ? 'maxBalance' THEN (p_change ->> 'maxBalance')::bigint ELSE account.max_balance END;
  v_status := coalesce(p_change ->> 'status', account.status);
  outcome := CASE
    WHEN (v_overdraft_limit, v_max_balance, v_status)
         IS NOT DISTINCT FROM (account.overdraft_limit, account.max_balance, account.status) THEN 'unchanged'
    WHEN account.status = 'closed' THEN 'account_closed'
    WHEN account.balance - account.held < -v_overdraft_limit THEN 'overdraft_limit_too_low'
    WHEN v_status = 'closed' AND (account.balance <> 0 OR account.held <> 0) THEN 'account_not_empty'
    ELSE 'changed'
  END;
  IF outcome <> 'changed' THEN RETURN; END IF;

  v_previous_epoch := account.epoch;
  UPDATE account AS one
  SET overdraft_limit = v_overdraft_limit, max_balance = v_max_balance, status = v_status, version = one.version + 1,
      epoch = greatest(current_epoch(), one.epoch),
      updated_at = greatest(v_now, one.updated_at)
  WHERE one.account_id = p_account_id
  RETURNING one.* INTO account;
  INSERT INTO outbox (
    account_id, version, epoch, previous_epoch, balance, held, created_at, type, asset, actor, traceparent,
    overdraft_limit, max_balance, status
  ) VALUES (
    account.account_id, account.version, account.epoch, v_previous_epoch, account.balance, account.held, account.updated_at,
    'account.changed', account.asset, p_actor, p_traceparent, v_overdraft_limit, v_max_balance, v_status
  );
END
$$;
