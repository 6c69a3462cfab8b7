-- Opens an account, at version 0. An existing account with that id is returned unchanged, so a
-- retry is safe.
--
--   opened    whether this call opened it
--   account   the account as it is now
CREATE OR REPLACE FUNCTION open_account(
  p_account_id text, p_asset text, p_overdraft_limit bigint, p_max_balance bigint, p_actor text, p_traceparent text,
  OUT opened boolean, OUT account account
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  v_now CONSTANT timestamptz := date_trunc('milliseconds', clock_timestamp());
BEGIN
  INSERT INTO account AS new (account_id, asset, epoch, overdraft_limit, max_balance, created_at, updated_at)
  VALUES (p_account_id, p_asset, current_epoch(), p_overdraft_limit, p_max_balance, v_now, v_now)
  ON CONFLICT (account_id) DO NOTHING
  RETURNING new.* INTO account;
  opened := FOUND;
  IF opened THEN
    INSERT INTO outbox (
      account_id, version, epoch, balance, created_at, type, asset, actor, traceparent, overdraft_limit, max_balance, status
    ) VALUES (
      account.account_id, 0, account.epoch, 0, v_now, 'account.opened', account.asset, p_actor, p_traceparent,
      account.overdraft_limit, account.max_balance, account.status
    );
  ELSE
    SELECT existing.* INTO account FROM account existing WHERE existing.account_id = p_account_id;
  END IF;
END
$$;
