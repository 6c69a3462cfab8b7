// What a snapshot of the whole database has to hold at any moment, in queries of the suite's own. Each returns what offends.
const OFFENDERS_MAX = 5;

const CHANGE = `account_id, version, epoch, previous_epoch, type, asset, amount, held_change, balance, held, reference, actor,
           metadata, transfer_id, reverses, hold_id, hold_status, hold_remaining, hold_expires_at, overdraft_limit, max_balance,
           status, created_at`;

// UNION makes equal rows of both tables one: only a version that exists twice with different contents counts twice.
const CHANGES = `
  changes AS (
    SELECT ${CHANGE} FROM ledger
    UNION
    SELECT ${CHANGE} FROM outbox
  )`;

const ACCOUNTS = `
  WITH ${CHANGES},
  totals AS (
    SELECT account_id, count(*) AS changes, count(DISTINCT version) AS versions, min(version) AS first, max(version) AS last,
           sum(amount) AS total, sum(held_change) AS total_held
    FROM changes GROUP BY account_id
  )
  SELECT account_id AS "accountId", account.version, account.balance, account.held, totals.changes, totals.versions, totals.first,
         totals.last, totals.total, totals.total_held
  FROM account FULL JOIN totals USING (account_id)
  WHERE (changes, versions, first, last, total, total_held)
        IS DISTINCT FROM (account.version + 1, account.version + 1, 0::bigint, account.version, account.balance::numeric, account.held::numeric)
  ORDER BY account_id LIMIT ${OFFENDERS_MAX}`;

const TRANSFERS = `
  WITH ${CHANGES}
  SELECT transfer_id AS "transferId", sum(amount) AS sum, count(*) AS legs, count(DISTINCT asset) AS assets
  FROM changes WHERE transfer_id IS NOT NULL
  GROUP BY transfer_id
  HAVING sum(amount) <> 0 OR count(*) < 2 OR count(DISTINCT asset) > 1 OR count(DISTINCT account_id) < count(*)
  LIMIT ${OFFENDERS_MAX}`;

const HOLDS = `
  SELECT account_id AS "accountId", account.held, account.balance, account.overdraft_limit AS "overdraftLimit", active.sum
  FROM account
  LEFT JOIN (SELECT account_id, sum(remaining) AS sum FROM hold WHERE status = 'active' GROUP BY account_id) active USING (account_id)
  WHERE account.held <> coalesce(active.sum, 0) OR account.balance - account.held < -account.overdraft_limit
  LIMIT ${OFFENDERS_MAX}`;

// In the account that gave the id; the other legs are those of whole transfers.
const REVERSALS = `
  WITH ${CHANGES},
  reversed AS (
    SELECT account_id, split_part(reverses, ':', -2)::bigint AS version, reverses, sum(amount) AS total
    FROM changes WHERE reverses IS NOT NULL AND starts_with(reverses, account_id || ':')
    GROUP BY account_id, reverses
  )
  SELECT account_id AS "accountId", reversed.reverses, reversed.total, changes.amount
  FROM reversed LEFT JOIN changes USING (account_id, version)
  WHERE changes.amount IS NULL OR changes.reverses IS NOT NULL
     OR abs(reversed.total) > abs(changes.amount) OR sign(reversed.total) = sign(changes.amount)
  LIMIT ${OFFENDERS_MAX}`;

export const OWN_VIEW = [ACCOUNTS, TRANSFERS, HOLDS, REVERSALS];
