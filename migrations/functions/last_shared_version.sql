-- The last version that an account shares with another history in which no epoch is above the given
-- one: the version before the account's first entry of a higher epoch; -1: none. Epochs never fall
-- from version to version, so it is found by binary search, with about 20 look-ups by key in an
-- account of a million entries.
CREATE OR REPLACE FUNCTION last_shared_version(p_account_id text, p_epoch bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
  v_shared bigint := -1;
  v_last bigint := coalesce((SELECT account.version FROM account WHERE account.account_id = p_account_id), -1);
  v_middle bigint;
BEGIN
  WHILE v_shared < v_last LOOP
    v_middle := (v_shared + v_last + 1) / 2;
    IF EXISTS (SELECT FROM ledger WHERE ledger.account_id = p_account_id AND ledger.version = v_middle AND ledger.epoch <= p_epoch)
       OR EXISTS (SELECT FROM outbox WHERE outbox.account_id = p_account_id AND outbox.version = v_middle AND outbox.epoch <= p_epoch)
    THEN
      v_shared := v_middle;
    ELSE
      v_last := v_middle - 1;
    END IF;
  END LOOP;
  RETURN v_shared;
END
$$;
