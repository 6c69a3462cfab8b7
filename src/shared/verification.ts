// Verifies the whole database in one snapshot, for the operator: correct at any time, even under
// traffic. Proceeds account by account, so that it can report its progress. For every account:
// ledger and outbox together hold the versions 0..n once each, their amounts add up to the balance
// and their changes of holds to what is held, each entry follows from the one before, limits,
// status, asset, epoch and times are those of the entries, and the entries are those that were
// hashed. Holds are as their entries left them and make up what is held, transfers are whole, and
// nothing is reversed by more than its amount.
import type pg from 'pg';
import { CHAIN_PROBLEMS } from './chain-problems.ts';
import { changeRow } from './change.ts';
import type { AccountVerification } from './contract.ts';
import { MONEY_PROBLEMS } from './money-problems.ts';

/** Accounts named in a report; all are counted. */
const OFFENDERS_MAX = 20;

export interface Offender {
  accountId: string;
  /** What is wrong, one sentence each. */
  problems: string[];
}

export interface Verification {
  accounts: number;
  ledgerEntries: number;
  /** Changes whose entry is not in the ledger yet. */
  pendingChanges: number;
  /** Ledger entries that have no hash yet. */
  unchainedEntries: number;
  offendingAccounts: number;
  /** The first of them by account id, at most 20. */
  offenders: Offender[];
}

// The two parts of entries are each in key order by their primary keys, so the whole streams
// without a sort. Limits are compared as arrays, which are ordered by their first element: the
// version.
const ENTRY = `account_id, version, epoch, previous_epoch, amount, held_change, balance, held, asset, created_at,
           CASE WHEN status IS NOT NULL THEN ARRAY[version, ${limitsOf('')}] END AS limits`;

function limitsOf(row: string): string {
  return `${row}overdraft_limit, coalesce(${row}max_balance, -1), array_position(ARRAY['open', 'frozen', 'closed'], ${row}status)`;
}

const HISTORIES = `
  entries AS (
    SELECT ${ENTRY}, 0 AS pending FROM ledger
    UNION ALL
    SELECT ${ENTRY}, 1 FROM outbox
    WHERE NOT EXISTS (
      SELECT FROM ledger WHERE ledger.account_id = outbox.account_id AND ledger.version = outbox.version
    )
  ),
  steps AS (
    SELECT *, lag(version, 1, -1::bigint) OVER in_order AS version_before, lag(balance, 1, 0::bigint) OVER in_order AS balance_before,
           lag(held, 1, 0::bigint) OVER in_order AS held_before, lag(epoch) OVER in_order AS epoch_before, lead(version) OVER in_order IS NULL AS is_last
    FROM entries
    WINDOW in_order AS (PARTITION BY account_id ORDER BY version)
  ),
  histories AS (
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
  contradictions AS (
    SELECT account_id, min(outbox.version) AS version
    FROM outbox
    JOIN ledger USING (account_id, version)
    WHERE ${changeRow('outbox')} IS DISTINCT FROM ${changeRow('ledger')}
    GROUP BY account_id
  ),
  ${CHAIN_PROBLEMS},
  ${MONEY_PROBLEMS},
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
    ] || money_problems.problems || chain_problems.problems, NULL) AS problems
    FROM account
    FULL JOIN histories USING (account_id)
    FULL JOIN chain_problems USING (account_id)
    FULL JOIN money_problems USING (account_id)
    LEFT JOIN held USING (account_id)
    LEFT JOIN contradictions USING (account_id)
  )`;

const TABLES = ['account', 'ledger', 'outbox', 'ledger_chain', 'hold', 'reversal'];

/**
 * Table expressions that have the names of the tables, but only the rows of some accounts; and
 * whole_ledger and whole_outbox, for what is in other accounts. NOT MATERIALIZED, so that the
 * tables are read in place, in key order.
 */
function ofAccounts(condition: string): string {
  return [
    ...['ledger', 'outbox'].map((table) => `whole_${table} AS NOT MATERIALIZED (SELECT * FROM ${table})`),
    ...TABLES.map((table) => `${table} AS NOT MATERIALIZED (SELECT * FROM ${table} WHERE ${condition})`),
  ].join(', ');
}

const VERIFY = `
  WITH ${ofAccounts('($2::text IS NULL OR account_id > $2) AND ($3::text IS NULL OR account_id <= $3)')},
  ${HISTORIES}
  SELECT count(*) AS accounts,
         coalesce(sum(recorded), 0) AS ledger_entries,
         coalesce(sum(pending), 0) AS pending_changes,
         coalesce(sum(recorded), 0) - coalesce(sum(hashed), 0) AS unchained_entries,
         count(*) FILTER (WHERE problems <> '{}') AS offending_accounts,
         coalesce((
           SELECT json_agg(json_build_object('accountId', account_id, 'problems', problems) ORDER BY account_id)
           FROM (SELECT account_id, problems FROM judged WHERE problems <> '{}' ORDER BY account_id LIMIT $1) named
         ), '[]') AS offenders
  FROM judged`;

// TRUNCATE is not MVCC-safe: a snapshot from before the relay truncated a part of the outbox would
// find it empty, and might not yet find the ledger entries that replaced it. So the partitions are
// locked first and read afterwards.
export const KEEP_OUTBOX = 'LOCK TABLE outbox IN ACCESS SHARE MODE';

// Ledger and hashes are joined as a whole. If one account has most of the entries, the planner
// expects a thousand times too many rows, and would look up each one separately, or JIT-compile a
// query that runs for milliseconds.
const PLAN = `
  SET LOCAL enable_nestloop = off; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL jit = off`;

/** The result for one account; without problems it is verified. */
export type AccountFindings = Omit<AccountVerification, 'accountId' | 'verified'>;

const VERIFY_ACCOUNT = `
  WITH ${ofAccounts('account_id = $1')},
  ${HISTORIES}
  SELECT (SELECT version FROM account) AS version, coalesce(recorded, 0) AS "ledgerEntries", coalesce(pending, 0) AS "pendingChanges",
         coalesce(recorded, 0) - coalesce(hashed, 0) AS "unchainedEntries", problems
  FROM judged`;

/**
 * Reads only, in one snapshot. Undefined when there is no such account. The cost grows with its
 * entries, so the caller bounds them.
 * @param client one connection, outside a transaction.
 */
export async function verifyAccount(
  client: Pick<pg.ClientBase, 'query'>,
  accountId: string,
): Promise<AccountFindings | undefined> {
  await client.query('BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY');
  try {
    await client.query(KEEP_OUTBOX);
    await client.query(PLAN);
    const [row] = (await client.query(VERIFY_ACCOUNT, [accountId])).rows;
    return (
      row && {
        version: Number(row.version),
        ledgerEntries: Number(row.ledgerEntries),
        pendingChanges: Number(row.pendingChanges),
        unchainedEntries: Number(row.unchainedEntries),
        problems: row.problems,
      }
    );
  } finally {
    await client.query('ROLLBACK').catch(() => {}); // if the connection is lost, the previous query has reported it
  }
}

/** Changes that one statement proves, unless one account alone has more. */
const STEP_CHANGES = 200_000;
const STEP_ACCOUNTS_MAX = 50_000;

/**
 * The last account of the step that begins after $1, or with the first account if $1 is null. No
 * row: all that follow are one step.
 */
const STEP = `
  SELECT account_id AS "accountId" FROM (
    SELECT account_id, sum(version + 1) OVER in_order AS changes, row_number() OVER in_order AS number
    FROM account WHERE $1::text IS NULL OR account_id > $1
    WINDOW in_order AS (ORDER BY account_id ROWS UNBOUNDED PRECEDING)
    ORDER BY account_id LIMIT ${STEP_ACCOUNTS_MAX}
  ) AS step
  WHERE changes >= ${STEP_CHANGES} OR number = ${STEP_ACCOUNTS_MAX}
  ORDER BY account_id LIMIT 1`;

/**
 * Reads only. The time grows with the ledger: about eight seconds for a million entries, and twice
 * that if all are legs of transfers.
 * @param client one connection, outside a transaction: not a pool.
 * @param onStep called after each step with what has been found so far.
 */
export async function verify(
  client: Pick<pg.ClientBase, 'query'>,
  onStep?: (soFar: Verification) => void,
): Promise<Verification> {
  const found: Verification = {
    accounts: 0,
    ledgerEntries: 0,
    pendingChanges: 0,
    unchainedEntries: 0,
    offendingAccounts: 0,
    offenders: [],
  };
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    await client.query(KEEP_OUTBOX); // takes no snapshot: the first query does
    await client.query(PLAN);
    // From null, not from '': the ledger accepts any text, so a row of the account '' would
    // otherwise be missed.
    let behind: string | null = null;
    do {
      const last: string | null = (await client.query(STEP, [behind])).rows[0]?.accountId ?? null;
      const [row] = (await client.query(VERIFY, [OFFENDERS_MAX - found.offenders.length, behind, last])).rows;
      found.accounts += Number(row.accounts);
      found.ledgerEntries += Number(row.ledger_entries);
      found.pendingChanges += Number(row.pending_changes);
      found.unchainedEntries += Number(row.unchained_entries);
      found.offendingAccounts += Number(row.offending_accounts);
      found.offenders.push(...row.offenders);
      onStep?.(found);
      behind = last;
    } while (behind !== null);
    return found;
  } finally {
    await client.query('ROLLBACK').catch(() => {}); // if the connection is lost, the previous query has reported it
  }
}
