-- Expires the holds of some accounts that are due, oldest first, with an entry for each. The
-- calling function has locked the accounts.
--
--   p_account_ids   each once
--   p_now           the clock of the database, read under the locks, in milliseconds
--   p_holds_max     holds that this call expires at most, so that no statement is long
--   more_due        the accounts that have more of them
--
-- Expiry is decided by the clock of the database under the account's lock: a due hold is available
-- to the next debit and cannot be captured, whether or not a sweep has processed it.
CREATE OR REPLACE FUNCTION expire_due_holds(
  p_account_ids text[], p_now timestamptz, p_holds_max integer, OUT expired integer, OUT more_due text[]
)
LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
  WITH due AS MATERIALIZED (
    SELECT hold.account_id, hold.hold_id, hold.remaining, hold.expires_at,
           row_number() OVER in_order AS place, sum(hold.remaining) OVER in_order AS released
    FROM (
      SELECT one.* FROM unnest(p_account_ids) AS wanted (account_id)
      CROSS JOIN LATERAL (
        SELECT * FROM hold
        WHERE hold.account_id = wanted.account_id COLLATE "C" AND hold.status = 'active' AND hold.expires_at <= p_now
        ORDER BY hold.expires_at LIMIT p_holds_max
      ) one
      LIMIT p_holds_max
    ) hold
    WINDOW in_order AS (PARTITION BY hold.account_id ORDER BY hold.expires_at, hold.hold_id)
  ),
  before AS MATERIALIZED (
    SELECT account.account_id, account.asset, account.balance, account.held, account.version, account.epoch,
           greatest(current.epoch, account.epoch) AS new_epoch, greatest(p_now, account.updated_at) AS at
    FROM (SELECT DISTINCT due.account_id FROM due) one
    CROSS JOIN LATERAL (SELECT * FROM account WHERE account.account_id = one.account_id LIMIT 1) account
    CROSS JOIN (SELECT current_epoch() AS epoch) current
  ),
  ended AS (
    UPDATE hold SET status = 'expired', remaining = 0, updated_at = before.at
    FROM due JOIN before ON before.account_id = due.account_id
    WHERE hold.account_id = due.account_id AND hold.hold_id = due.hold_id
  ),
  queued AS (
    INSERT INTO outbox (
      account_id, version, epoch, previous_epoch, held_change, balance, held, created_at, type, asset,
      hold_id, hold_status, hold_remaining, hold_expires_at
    )
    SELECT due.account_id, before.version + due.place, before.new_epoch, CASE due.place WHEN 1 THEN before.epoch ELSE before.new_epoch END,
           -due.remaining, before.balance, before.held - due.released, before.at, 'hold.expired', before.asset,
           due.hold_id, 'expired', 0, due.expires_at
    FROM due JOIN before ON before.account_id = due.account_id
    ORDER BY due.account_id, due.place
    RETURNING 1
  ),
  changed AS (
    UPDATE account
    SET held = account.held - total.released, version = account.version + total.holds, epoch = total.new_epoch, updated_at = total.at
    FROM (
      SELECT due.account_id, sum(due.remaining) AS released, count(*) AS holds, min(before.new_epoch) AS new_epoch, min(before.at) AS at
      FROM due JOIN before ON before.account_id = due.account_id
      GROUP BY due.account_id
    ) total
    WHERE account.account_id = total.account_id
  )
  SELECT count(*) INTO expired FROM queued;

  more_due := '{}';
  IF expired = p_holds_max THEN
    SELECT coalesce(array_agg(wanted.account_id), '{}') INTO more_due
    FROM unnest(p_account_ids) AS wanted (account_id)
    CROSS JOIN LATERAL (
      SELECT FROM hold
      WHERE hold.account_id = wanted.account_id COLLATE "C" AND hold.status = 'active' AND hold.expires_at <= p_now LIMIT 1
    ) due;
  END IF;
END
$$;
