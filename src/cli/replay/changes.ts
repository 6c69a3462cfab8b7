// Reads the changes of the past from the database, account by account, in pages: bounded memory, and no statement is long.

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
  /** The moment behind the last. */
  to: Date | undefined;
}

/** Of a change in the order in which they are read. */
export interface Position {
  accountId: string;
  version: number;
}

export interface Page {
  changes: Change[];
  /** Changes that were looked at, those that the selection leaves out included. */
  scanned: number;
  /** Of the last one looked at. */
  last: Position;
}

/** Changes that one statement looks at. */
const PAGE_ROWS = 2000;

const PART = (table: string) => `
  (SELECT ${CHANGE_COLUMN_NAMES} FROM ${table}
   WHERE (account_id, version) > ($1, $2) AND (account_id, version) <= ($3, $4)
   ORDER BY account_id, version LIMIT ${PAGE_ROWS})`;

// Ledger and outbox together hold every change once it is committed, so nothing waits for the worker. Most of the outbox is in
// the ledger too: UNION takes equal rows for one.
const PAGE = `
  SELECT ${SELECT_CHANGE},
         version >= $5 AND version <= $6 AND created_at >= $7 AND created_at < $8 AS selected
  FROM (${PART('ledger')} UNION ${PART('outbox')}) AS page
  ORDER BY account_id, version LIMIT ${PAGE_ROWS}`;

/** Behind every account id in byte order. */
const BEHIND_ALL = '~';

// TRUNCATE is not MVCC-safe, so the outbox is held before the snapshot is taken, as in verify.
const HOLD = 'LOCK TABLE outbox IN ACCESS SHARE MODE';

/** @param client outside a transaction. Each page is a transaction of its own: what is committed before it is read, is in it. */
export async function* readChanges(
  client: Client,
  selection: Selection,
  after: Position | undefined,
): AsyncGenerator<Page> {
  const { accountId, fromVersion = 0, toVersion = Number.MAX_SAFE_INTEGER, from, to } = selection;
  const end = accountId === undefined ? [BEHIND_ALL, 0] : [accountId, toVersion];
  const bounds = [...end, fromVersion, toVersion, from?.toISOString() ?? '-infinity', to?.toISOString() ?? 'infinity'];
  let last = accountId === undefined ? { accountId: '', version: -1 } : { accountId, version: fromVersion - 1 };
  if (after && isBehind(after, last)) last = after;
  for (;;) {
    const rows = await readPage(client, [last.accountId, last.version, ...bounds]);
    const newest = rows.at(-1);
    if (!newest) return;
    last = { accountId: newest.accountId, version: newest.version };
    yield { changes: rows.filter(({ selected }) => selected), scanned: rows.length, last };
  }
}

function isBehind(one: Position, other: Position): boolean {
  if (one.accountId === other.accountId) return one.version > other.version;
  return one.accountId > other.accountId; // ids are ASCII, so this is their order in the database
}

async function readPage(client: Client, values: unknown[]): Promise<(Change & { selected: boolean })[]> {
  await client.query('BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY');
  try {
    await client.query(HOLD);
    await client.query('SET LOCAL enable_seqscan = off');
    return (await client.query(PAGE, values)).rows;
  } finally {
    await client.query('ROLLBACK').catch(() => {}); // where the connection is gone the query before has said so
  }
}
