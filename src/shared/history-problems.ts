// SQL for verify: finds problems in the history of each account, and in its row. Its entries follow
// each other without a gap, from the opening or from an entry that is known, and the row is as the
// last one left it.
import { chainProblems, GENESIS } from './chain-problems.ts';
import { changeRow } from './change.ts';
import { ALL_MARKED, type MoneySources, moneyProblems } from './money-problems.ts';

// The two parts of entries are each in key order by their primary keys, so the whole streams
// without a sort. Limits are compared as arrays, which are ordered by their first element: the
// version.
const ENTRY = `account_id, version, epoch, previous_epoch, amount, held_change, balance, held, asset, created_at,
           CASE WHEN status IS NOT NULL THEN ARRAY[version, ${limitsOf('')}] END AS limits`;

export function limitsOf(row: string): string {
  return `${row}overdraft_limit, coalesce(${row}max_balance, -1), array_position(ARRAY['open', 'frozen', 'closed'], ${row}status)`;
}

/** Where the histories that are checked begin, as SQL. */
export interface Beginning {
  /** What the steps are read from: `entries`, and beside each the columns of `before`. */
  entries: string;
  /** The entry that the first one of `entries` has to follow. */
  before: { version: string; balance: string; held: string; epoch: string };
  /** The query of histories: histories_read, and what was before. */
  histories: string;
  /** The last version and the hash that the first segment of ledger_chain has to follow. */
  chain: { version: string; hash: string };
  money: MoneySources;
  /** A table expression of further problems by account, with problems as an array. */
  further?: string;
}

/** At the opening of each account. */
export const FROM_OPENING: Beginning = {
  entries: 'entries',
  before: { version: '-1::bigint', balance: '0::bigint', held: '0::bigint', epoch: 'NULL::bigint' },
  histories: 'SELECT * FROM histories_read',
  chain: GENESIS,
  money: ALL_MARKED,
};

/**
 * Common table expressions, the last of which is judged: account_id, recorded, pending, hashed and
 * problems. They read account, ledger, outbox, ledger_chain, hold, active_hold and reversal, of the
 * accounts and entries being checked, and whole_ledger and whole_outbox.
 */
export const historyProblems = ({ entries, before, histories, chain, money, further }: Beginning) => `
  entries AS (
    SELECT ${ENTRY}, 0 AS pending FROM ledger
    UNION ALL
    SELECT ${ENTRY}, 1 FROM outbox
    WHERE NOT EXISTS (
      SELECT FROM ledger WHERE ledger.account_id = outbox.account_id AND ledger.version = outbox.version
    )
  ),
  steps AS (
    SELECT *, lag(version, 1, ${before.version}) OVER in_order AS version_before,
           lag(balance, 1, ${before.balance}) OVER in_order AS balance_before,
           lag(held, 1, ${before.held}) OVER in_order AS held_before,
           lag(epoch, 1, ${before.epoch}) OVER in_order AS epoch_before, lead(version) OVER in_order IS NULL AS is_last
    FROM ${entries}
    WINDOW in_order AS (PARTITION BY account_id ORDER BY version)
  ),
  histories_read AS (
    SELECT account_id, count(*) AS entries, sum(pending) AS pending, max(version) AS last_version, sum(amount) AS total,
           sum(held_change) AS total_held, max(limits) AS limits, max(epoch) AS last_epoch,
           min(created_at) FILTER (WHERE version = 0) AS opened_at, max(created_at) FILTER (WHERE is_last) AS changed_at,
           min(asset COLLATE "C") AS asset, max(asset COLLATE "C") AS other_asset,
           min(version_before + 1) FILTER (WHERE version > version_before + 1) AS missing_version,
           min(version) FILTER (WHERE version <= version_before) AS repeated_version,
           min(version) FILTER (WHERE version = version_before + 1 AND balance <> balance_before::numeric + amount) AS broken_version,
           min(version) FILTER (WHERE version = version_before + 1 AND held <> held_before::numeric + held_change) AS broken_held_version,
           min(version) FILTER (WHERE version = version_before + 1
                                      AND (previous_epoch IS DISTINCT FROM epoch_before OR epoch < epoch_before)) AS broken_epoch_version
    FROM steps
    GROUP BY account_id
  ),
  histories AS (${histories}),
  contradictions AS (
    SELECT account_id, min(outbox.version) AS version
    FROM outbox
    JOIN ledger USING (account_id, version)
    WHERE ${changeRow('outbox')} IS DISTINCT FROM ${changeRow('ledger')}
    GROUP BY account_id
  ),
  ${chainProblems(chain)},
  ${moneyProblems(money)},
  judged AS (
    SELECT account_id, histories.entries - pending AS recorded, pending, chain_problems.entries AS hashed, array_remove(ARRAY[
      CASE WHEN account.account_id IS NULL THEN 'has entries but no account row' END,
      CASE WHEN account.account_id IS NOT NULL AND last_version IS NULL THEN 'has no entries, not even of its opening' END,
      CASE WHEN missing_version IS NOT NULL THEN format('version %s is missing', missing_version) END,
      CASE WHEN repeated_version IS NOT NULL THEN format('version %s exists twice', repeated_version) END,
      CASE WHEN broken_version IS NOT NULL
           THEN format('the balance of version %s is not the one before plus its amount', broken_version) END,
      CASE WHEN broken_held_version IS NOT NULL
           THEN format('the held amount of version %s is not the one before plus its change', broken_held_version) END,
      CASE WHEN broken_epoch_version IS NOT NULL
           THEN format('the epoch of version %s does not follow the one before', broken_epoch_version) END,
      CASE WHEN account.version <> last_version
           THEN format('the account is at version %s, but its last entry at %s', account.version, last_version) END,
      CASE WHEN account.balance <> total
           THEN format('the balance is %s, but the amounts of the entries add up to %s', account.balance, total) END,
      CASE WHEN account.held <> total_held
           THEN format('the account holds %s, but the changes of its entries add up to %s', account.held, total_held) END,
      CASE WHEN account.held <> coalesce(held.amount, 0)
           THEN format('the account holds %s, but its active holds have %s left', account.held, coalesce(held.amount, 0)) END,
      CASE WHEN account.account_id IS NOT NULL AND last_version IS NOT NULL AND limits IS NULL THEN 'no entry sets the limits' END,
      CASE WHEN ARRAY[${limitsOf('account.')}] <> limits[2:]
           THEN format('the limits or the status differ from version %s, which set them last', limits[1]) END,
      CASE WHEN account.version = last_version AND account.epoch <> last_epoch
           THEN format('the account has epoch %s, but its last entry has %s', account.epoch, last_epoch) END,
      CASE WHEN account.created_at <> opened_at
           THEN format('the account was opened at %s, but its first entry says %s', account.created_at, opened_at) END,
      CASE WHEN account.version = last_version AND account.updated_at <> changed_at
           THEN format('the account was last changed at %s, but its last entry says %s', account.updated_at, changed_at) END,
      CASE WHEN account.asset <> histories.asset OR account.asset <> other_asset THEN 'the asset differs from the entries' END,
      CASE WHEN contradictions.version IS NOT NULL
           THEN format('version %s differs between outbox and ledger', contradictions.version) END
    ] || money_problems.problems || chain_problems.problems${further ? ` || ${further}.problems` : ''}, NULL) AS problems
    FROM account
    FULL JOIN histories USING (account_id)
    FULL JOIN chain_problems USING (account_id)
    FULL JOIN money_problems USING (account_id)
    LEFT JOIN held USING (account_id)
    LEFT JOIN contradictions USING (account_id)${
      further
        ? `
    LEFT JOIN ${further} USING (account_id)`
        : ''
    }
  )`;
