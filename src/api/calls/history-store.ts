// SQL for the histories of accounts. Reads only, each statement bounded in what it looks at.
import { type Change, SELECT_CHANGE } from '../../shared/change.ts';
import type { Pool } from '../../shared/database.ts';

export interface Entry extends Change {
  recordedAt: Date;
}

export interface EntryFilter {
  direction?: 'credit' | 'debit' | undefined;
  reference?: string | undefined;
}

/** Entries that one statement looks at, where a filter lets few of them through. */
export const SCANNED_MAX = 20_000;

const COLUMNS = `${SELECT_CHANGE}, recorded_at AS "recordedAt"`;
const MATCHES = `
  ($4::text IS NULL OR sign(amount) = CASE $4 WHEN 'credit' THEN 1 ELSE -1 END) AND ($5::text IS NULL OR reference = $5)`;

const NEWEST_FIRST = `
  SELECT ${COLUMNS} FROM ledger
  WHERE account_id = $1 AND version < $2 AND version >= $3 AND ${MATCHES}
  ORDER BY version DESC LIMIT $6`;
const OLDEST_FIRST = `
  SELECT ${COLUMNS} FROM ledger
  WHERE account_id = $1 AND version >= $2 AND version < $3 AND ${MATCHES}
  ORDER BY version LIMIT $6`;

/** A part of a history, and where the next one begins; undefined at the end. */
export interface Slice {
  entries: Entry[];
  next: number | undefined;
}

/** Entries of versions from `fromVersion` up to below `belowVersion`, newest first, at most `limit` and as far as one statement looks. */
export async function readNewestFirst(
  pool: Pool,
  id: string,
  range: { fromVersion: number; belowVersion: number; limit: number },
  { direction, reference }: EntryFilter,
): Promise<Slice> {
  const first = Math.max(range.fromVersion, range.belowVersion - SCANNED_MAX);
  const values = [id, range.belowVersion, first, direction ?? null, reference ?? null, range.limit];
  const { rows: entries } = await pool.query<Entry>(NEWEST_FIRST, values);
  const lookedDownTo = entries.length === range.limit ? (entries.at(-1)?.version ?? first) : first;
  return { entries, next: lookedDownTo > range.fromVersion ? lookedDownTo : undefined };
}

/** The same, oldest first. */
export async function readOldestFirst(
  pool: Pool,
  id: string,
  range: { fromVersion: number; belowVersion: number; limit: number },
  { direction, reference }: EntryFilter,
): Promise<Slice> {
  const below = Math.min(range.belowVersion, range.fromVersion + SCANNED_MAX);
  const values = [id, range.fromVersion, below, direction ?? null, reference ?? null, range.limit];
  const { rows: entries } = await pool.query<Entry>(OLDEST_FIRST, values);
  const next = entries.length === range.limit ? (entries.at(-1)?.version ?? 0) + 1 : below;
  return { entries, next: next < range.belowVersion ? next : undefined };
}

const VERSIONS = `
  SELECT account.version AS version,
         (SELECT max(ledger.version) FROM ledger WHERE ledger.account_id = $1) AS "ledgerVersion"
  FROM account WHERE account_id = $1`;

export interface Versions {
  version: number;
  /** Null while it has no entry. */
  ledgerVersion: number | null;
}

/** Of the account, and of its newest entry in the ledger; undefined when there is no such account. */
export async function readVersions(pool: Pool, id: string): Promise<Versions | undefined> {
  return (await pool.query<Versions>(VERSIONS, [id])).rows[0];
}

// A binary search: within an account createdAt never falls as the version rises. While an entry is on its way its place is
// empty, and the one before it counts instead. -1: before the first version.
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

/** What an account was worth at one version of it. */
export interface PastBalance {
  /** Null before its opening. */
  version: number | null;
  balance: number;
  held: number;
  /** Of the change that left it; null before the opening. */
  createdAt: Date | null;
}

// Ledger and outbox together hold every version of an account once, in any one snapshot: so this is right before the ledger
// has caught up.
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
  if (row && row.version === null) throw damaged(`a version is missing on the way to ${moment.toISOString()}`);
  return row && pastBalance(row.version, row);
}

/** Somebody removed entries. With the SQLSTATE for that: it is no failure that passes. */
function damaged(what: string): Error {
  return Object.assign(new Error(`the history is damaged: ${what}. npm run verify names it`), { code: 'XX001' });
}

/** @throws when the change is in neither table: what somebody removed is no balance of 0. */
function pastBalance(
  version: number,
  change: Record<'balance' | 'held', number | null> & { createdAt: Date | null },
): PastBalance {
  if (version === -1) return { version: null, balance: 0, held: 0, createdAt: null };
  const { balance, held, createdAt } = change;
  if (balance === null || held === null) throw damaged(`version ${version} is in neither ledger nor outbox`);
  return { version, balance, held, createdAt };
}
