// Verifies the whole database in one snapshot, for the operator: correct at any time, even under
// traffic. Proceeds account by account, so that it can report its progress. For every account:
// ledger and outbox together hold the versions 0..n once each, their amounts add up to the balance
// and their changes of holds to what is held, each entry follows from the one before, limits,
// status, asset, epoch and times are those of the entries, and the entries are those that were
// hashed. Holds are as their entries left them and make up what is held, transfers are whole, and
// nothing is reversed by more than its amount.
import type pg from 'pg';
import type { AccountVerification } from './contract.ts';
import { FROM_OPENING, historyProblems } from './history-problems.ts';

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
    `active_hold AS NOT MATERIALIZED (SELECT * FROM hold WHERE status = 'active')`,
  ].join(', ');
}

/** Of the accounts after $2 up to and including $3; null: from the first one, to the last one. */
export const IN_STEP = '($2::text IS NULL OR account_id > $2) AND ($3::text IS NULL OR account_id <= $3)';

/** Counts of what was judged, and at most $1 accounts with what is wrong. */
export const COUNT_JUDGED = `
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

const VERIFY = `
  WITH ${ofAccounts(IN_STEP)},
  ${historyProblems(FROM_OPENING)}
  ${COUNT_JUDGED}`;

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
  ${historyProblems(FROM_OPENING)}
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
export const STEP_CHANGES = 200_000;
export const STEP_ACCOUNTS_MAX = 50_000;

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

/** What a step found, as COUNT_JUDGED gives it. */
export type Judged = Record<
  'accounts' | 'ledger_entries' | 'pending_changes' | 'unchained_entries' | 'offending_accounts',
  string
> & {
  offenders: Offender[];
};

/** Adds up what steps find. */
export class Findings {
  readonly soFar: Verification = {
    accounts: 0,
    ledgerEntries: 0,
    pendingChanges: 0,
    unchainedEntries: 0,
    offendingAccounts: 0,
    offenders: [],
  };

  /** Accounts that the next step may name. */
  get room(): number {
    return OFFENDERS_MAX - this.soFar.offenders.length;
  }

  add(step: Judged): void {
    this.soFar.accounts += Number(step.accounts);
    this.soFar.ledgerEntries += Number(step.ledger_entries);
    this.soFar.pendingChanges += Number(step.pending_changes);
    this.soFar.unchainedEntries += Number(step.unchained_entries);
    this.soFar.offendingAccounts += Number(step.offending_accounts);
    this.soFar.offenders.push(...step.offenders);
  }
}

/**
 * Reads in one snapshot, in which each change is in the outbox or else in the ledger.
 * @param client one connection, outside a transaction: not a pool.
 */
export async function inSnapshot<T>(
  client: Pick<pg.ClientBase, 'query'>,
  plan: string,
  read: () => Promise<T>,
): Promise<T> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    await client.query(KEEP_OUTBOX); // takes no snapshot: the first query does
    await client.query(plan);
    return await read();
  } finally {
    await client.query('ROLLBACK').catch(() => {}); // if the connection is lost, the previous query has reported it
  }
}

/**
 * Reads only. The time grows with the ledger: about eight seconds for a million entries, and twice
 * that if all are legs of transfers.
 * @param client one connection, outside a transaction: not a pool.
 * @param onStep called after each step with what has been found so far.
 */
export function verify(
  client: Pick<pg.ClientBase, 'query'>,
  onStep?: (soFar: Verification) => void,
): Promise<Verification> {
  return inSnapshot(client, PLAN, async () => {
    const findings = new Findings();
    // From null, not from '': the ledger accepts any text, so a row of the account '' would
    // otherwise be missed.
    let behind: string | null = null;
    do {
      const last: string | null = (await client.query(STEP, [behind])).rows[0]?.accountId ?? null;
      const { rows } = await client.query<Judged>(VERIFY, [findings.room, behind, last]);
      findings.add(rows[0] as Judged);
      onStep?.(findings.soFar);
      behind = last;
    } while (behind !== null);
    return findings.soFar;
  });
}
