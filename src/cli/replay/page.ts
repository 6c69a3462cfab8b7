// One page of past changes: read from ledger and outbox together, which hold every change once it is committed, so nothing waits
// for the worker.
import { CHANGE_COLUMN_NAMES, type Change, SELECT_CHANGE } from '../../shared/change.ts';
import type { Client } from '../../shared/database.ts';

/** Versions and times are bounds of what is read; undefined: no bound. */
export interface Selection {
  accountId: string | undefined;
  fromVersion: number | undefined;
  /** The last one. */
  toVersion: number | undefined;
  /** The first moment of creation. */
  from: Date | undefined;
  /** The moment after the last. */
  to: Date | undefined;
}

/** Of a change in the order in which they are read. */
export interface Position {
  accountId: string;
  version: number;
}

export interface Page {
  changes: Change[];
  /** Changes that were read, including those that the selection leaves out. */
  scanned: number;
  /** Of the last one looked at. */
  last: Position;
}

/** Changes that one statement looks at. */
export const PAGE_ROWS = 2000;

/**
 * A statement that reads a page. Its first four parameters are those of the selection.
 * @param part which rows of a table: most of the outbox is in the ledger too, and UNION takes equal rows for one.
 */
export const pageOf = (part: (columns: string, table: string) => string, limit = '') => `
  SELECT ${SELECT_CHANGE}, version >= $1 AND version <= $2 AND created_at >= $3 AND created_at < $4 AS selected
  FROM (${['ledger', 'outbox'].map((table) => `(${part(CHANGE_COLUMN_NAMES, table)})`).join(' UNION ')}) AS page
  ORDER BY account_id, version ${limit}`;

// TRUNCATE is not MVCC-safe, so the outbox is locked before the snapshot is taken, as in verify.
const HOLD = 'LOCK TABLE outbox IN ACCESS SHARE MODE';

/** @param client outside a transaction. Undefined where there is nothing. */
export async function readPage(
  client: Client,
  text: string,
  { fromVersion = 0, toVersion = Number.MAX_SAFE_INTEGER, from, to }: Selection,
  values: readonly unknown[],
): Promise<Page | undefined> {
  const bounds = [fromVersion, toVersion, from?.toISOString() ?? '-infinity', to?.toISOString() ?? 'infinity'];
  const rows: (Change & { selected: boolean })[] = await readHeld(client, text, [...bounds, ...values]);
  const newest = rows.at(-1);
  if (!newest) return undefined;
  const last = { accountId: newest.accountId, version: newest.version };
  return { changes: rows.filter(({ selected }) => selected), scanned: rows.length, last };
}

/** One statement in a transaction of its own, through indexes whatever the statistics say. */
// biome-ignore lint/suspicious/noExplicitAny: rows are as the statement selects them
export async function readHeld(client: Client, text: string, values: unknown[]): Promise<any[]> {
  await client.query('BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY');
  try {
    await client.query(HOLD);
    await client.query('SET LOCAL enable_seqscan = off');
    return (await client.query(text, values)).rows;
  } finally {
    await client.query('ROLLBACK').catch(() => {}); // if the connection is lost, the previous query has reported it
  }
}
