// SQL for the histories of accounts. Reads only, each statement bounded in what it looks at.
import { type Change, SELECT_CHANGE } from '../../shared/change.ts';
import type { ChangeType } from '../../shared/contract.ts';
import type { Pool } from '../../shared/database.ts';
import { LEDGER_VERSION } from './ledger-version.ts';

export interface Entry extends Change {
  recordedAt: Date;
}

export interface EntryFilter {
  direction?: 'credit' | 'debit' | undefined;
  type?: ChangeType | undefined;
  reference?: string | undefined;
  transferId?: string | undefined;
  holdId?: string | undefined;
}

/** Entries that one statement looks at, where a filter lets few of them through. */
export const SCANNED_MAX = 20_000;

const COLUMNS = `${SELECT_CHANGE}, recorded_at AS "recordedAt"`;

/** The condition of each filter on its value, those with an index first: the first of them that is asked for leads the search. */
const CONDITIONS = {
  transferId: (value: string) => `transfer_id = ${value}`,
  holdId: (value: string) => `hold_id = ${value}`,
  reference: (value: string) => `reference = ${value}`,
  type: (value: string) => `type = ${value}`,
  direction: (value: string) => `sign(amount) = CASE ${value} WHEN 'credit' THEN 1 ELSE -1 END`,
} satisfies Record<keyof EntryFilter, (value: string) => string>;
const INDEXED: readonly (keyof EntryFilter)[] = ['transferId', 'holdId', 'reference'];

/** A part of a history, and where the next one begins; undefined at the end. */
export interface Slice {
  entries: Entry[];
  next: number | undefined;
}

export interface VersionRange {
  fromVersion: number;
  belowVersion: number;
  limit: number;
}

/** Entries of versions from `fromVersion` up to below `belowVersion`, newest first, at most `limit` and as far as one statement looks. */
export function readNewestFirst(pool: Pool, id: string, range: VersionRange, filter: EntryFilter): Promise<Slice> {
  return read(pool, id, range, filter, 'DESC');
}

/** The same, oldest first. */
export function readOldestFirst(pool: Pool, id: string, range: VersionRange, filter: EntryFilter): Promise<Slice> {
  return read(pool, id, range, filter, 'ASC');
}

async function read(
  pool: Pool,
  id: string,
  { fromVersion, belowVersion, limit }: VersionRange,
  filter: EntryFilter,
  order: 'ASC' | 'DESC',
): Promise<Slice> {
  const isBack = order === 'DESC';
  const names = (Object.keys(CONDITIONS) as (keyof EntryFilter)[]).filter((name) => filter[name] !== undefined);
  const values: unknown[] = [id, fromVersion, belowVersion];
  const conditions = names.map((name) => CONDITIONS[name](`$${values.push(filter[name])}`));
  const isLed = INDEXED.includes(names[0] as keyof EntryFilter);
  let [first, below] = [fromVersion, belowVersion];
  if (!isLed) {
    if (isBack) first = Math.max(first, below - SCANNED_MAX);
    else below = Math.min(below, first + SCANNED_MAX);
  } else if (names.length > 1) {
    const text = `
      SELECT version FROM ledger
      WHERE account_id = $1 AND version >= $2 AND version < $3 AND ${conditions[0]}
      ORDER BY version ${order} OFFSET ${SCANNED_MAX - 1} LIMIT 1`;
    const last: number | undefined = (await pool.query(text, values.slice(0, 4))).rows[0]?.version;
    if (isBack) first = last ?? first;
    else below = last === undefined ? below : last + 1;
  }
  values.splice(1, 2, first, below);
  const text = `
    SELECT ${COLUMNS} FROM ledger
    WHERE ${['account_id = $1', 'version >= $2', 'version < $3', ...conditions].join(' AND ')}
    ORDER BY version ${order} LIMIT $${values.push(limit)}`;
  const { rows: entries } = await pool.query<Entry>(text, values);
  const last = entries.length === limit ? entries.at(-1)?.version : undefined;
  if (isBack) {
    const lookedDownTo = last ?? first;
    return { entries, next: lookedDownTo > fromVersion ? lookedDownTo : undefined };
  }
  const next = last === undefined ? below : last + 1;
  return { entries, next: next < belowVersion ? next : undefined };
}

const VERSIONS = `
  SELECT account.version, ${LEDGER_VERSION} AS "ledgerVersion" FROM account WHERE account.account_id = $1`;

export interface Versions {
  /** Of the account. */
  version: number;
  /** The last one up to which the ledger is complete; null while it lacks the first. What is above it is not to be read. */
  ledgerVersion: number | null;
}

/** Undefined when there is no such account. */
export async function readVersions(pool: Pool, id: string): Promise<Versions | undefined> {
  return (await pool.query<Versions>(VERSIONS, [id])).rows[0];
}

// A binary search: within an account createdAt never falls as the version rises. If someone removed
// an entry, the one before it counts instead. -1: before the first version.
const COUNT_BEFORE = `
  WITH RECURSIVE search (low, high) AS (
    SELECT -1::bigint, $3::bigint
    UNION ALL
    SELECT CASE WHEN probe.is_before THEN middle.version ELSE low END,
           CASE WHEN probe.is_before THEN high ELSE middle.version - 1 END
    FROM search
    CROSS JOIN LATERAL (SELECT (low + high + 1) / 2 AS version) middle
    CROSS JOIN LATERAL (
      SELECT coalesce((
        SELECT created_at < $2 FROM ledger
        WHERE account_id = $1 AND ledger.version > low AND ledger.version <= middle.version
        ORDER BY ledger.version DESC LIMIT 1
      ), true) AS is_before
    ) probe
    WHERE low < high
  )
  SELECT low AS version FROM search WHERE low = high`;

/** The last version up to `lastVersion` that was created before a moment; -1 when none was. */
export async function lastVersionBefore(pool: Pool, id: string, moment: Date, lastVersion: number): Promise<number> {
  const { rows } = await pool.query<{ version: number }>(COUNT_BEFORE, [id, moment.toISOString(), lastVersion]);
  return rows[0]?.version ?? -1;
}

/** The balance of an account at one of its versions. */
export interface PastBalance {
  /** Null before its opening. */
  version: number | null;
  balance: number;
  held: number;
  /** Of the change that left it; null before the opening. */
  createdAt: Date | null;
}

// Ledger and outbox together hold every version of an account once, in any one snapshot: so this is
// correct even before the ledger has caught up.
const CHANGE = (version: string) => `
  SELECT balance, held, created_at FROM ledger WHERE ledger.account_id = $1 AND ledger.version = ${version}
  UNION ALL
  SELECT balance, held, created_at FROM outbox WHERE outbox.account_id = $1 AND outbox.version = ${version}
  LIMIT 1`;

const AT_VERSION = `
  SELECT account.version AS "lastVersion", change.balance, change.held, change.created_at AS "createdAt"
  FROM account
  LEFT JOIN LATERAL (${CHANGE('$2')}) change ON true
  WHERE account.account_id = $1`;

/** The balance that a version left; `lastVersion` of the account when that is below it; undefined when there is no such account. */
export async function balanceAtVersion(
  pool: Pool,
  id: string,
  version: number,
): Promise<PastBalance | { lastVersion: number } | undefined> {
  const [row] = (await pool.query(AT_VERSION, [id, version])).rows;
  if (!row) return undefined;
  if (version > row.lastVersion) return { lastVersion: row.lastVersion };
  return pastBalance(version, row);
}

const AT_TIME = `
  WITH RECURSIVE search (low, high) AS (
    SELECT -1::bigint, version FROM account WHERE account_id = $1
    UNION ALL
    SELECT CASE WHEN change.created_at <= $2 THEN middle.version ELSE low END,
           CASE WHEN change.created_at <= $2 THEN high ELSE middle.version - 1 END
    FROM search
    CROSS JOIN LATERAL (SELECT (low + high + 1) / 2 AS version) middle
    CROSS JOIN LATERAL (${CHANGE('middle.version')}) change
    WHERE low < high
  )
  SELECT low AS version, change.balance, change.held, change.created_at AS "createdAt", $2 > clock_timestamp() AS "isFuture"
  FROM search
  LEFT JOIN LATERAL (${CHANGE('low')}) change ON true
  WHERE low = high
  UNION ALL
  SELECT NULL, NULL, NULL, NULL, NULL FROM account WHERE account_id = $1
  LIMIT 1`;

/**
 * The balance after the last change that was created at or before a moment; `future` where that is still to come, by the
 * clock of the database; undefined when there is no such account.
 */
export async function balanceAtTime(pool: Pool, id: string, moment: Date): Promise<PastBalance | 'future' | undefined> {
  const [row] = (await pool.query(AT_TIME, [id, moment.toISOString()])).rows;
  if (row?.isFuture) return 'future';
  if (row && row.version === null)
    throw new DamagedHistory(`a version is missing on the way to ${moment.toISOString()}`);
  return row && pastBalance(row.version, row);
}

/** Entries were removed by someone: retrying does not help. */
export class DamagedHistory extends Error {
  override name = 'DamagedHistory';

  constructor(what: string) {
    super(`the history is damaged: ${what}. npm run verify names it`);
  }
}

/** @throws when the change is in neither table: a removed entry must not read as a balance of 0. */
function pastBalance(
  version: number,
  change: Record<'balance' | 'held', number | null> & { createdAt: Date | null },
): PastBalance {
  if (version === -1) return { version: null, balance: 0, held: 0, createdAt: null };
  const { balance, held, createdAt } = change;
  if (balance === null || held === null) throw new DamagedHistory(`version ${version} is in neither ledger nor outbox`);
  return { version, balance, held, createdAt };
}
