// Writes ledger entries: the only writer of the ledger table, and it only inserts.
import { CHANGE_COLUMN_NAMES, CHANGE_COLUMNS, type Change, changeRow } from '../shared/change.ts';
import type { Pool } from '../shared/database.ts';

/**
 * - recorded: the entry is in the ledger now
 * - duplicate: the ledger held exactly this entry already
 * - forged: no accepted change says this; it was not recorded
 */
export type Verdict = 'recorded' | 'duplicate' | 'forged';

const DELIVERED = `
  delivered AS (
    SELECT *
    FROM unnest(${CHANGE_COLUMNS.map(([, type], index) => `$${index + 1}::${type}[]`).join(', ')})
      WITH ORDINALITY AS delivered (${CHANGE_COLUMN_NAMES}, item)
  )`;

// LATERAL with LIMIT 1, here and below: a look-up by key whatever the statistics say of a table that was empty yesterday.
//
// An event counts only when the outbox says the same: whoever can publish to the exchange cannot write history.
// Sorted by key, so that two workers insert in one order and never deadlock.
const RECORD = `
  WITH ${DELIVERED},
  genuine AS (
    SELECT delivered.*
    FROM delivered
    CROSS JOIN LATERAL (
      SELECT * FROM outbox WHERE outbox.account_id = delivered.account_id AND outbox.version = delivered.version LIMIT 1
    ) outbox
    WHERE ${changeRow('outbox')} IS NOT DISTINCT FROM ${changeRow('delivered')}
  ),
  inserted AS (
    INSERT INTO ledger (${CHANGE_COLUMN_NAMES})
    SELECT ${CHANGE_COLUMN_NAMES} FROM genuine ORDER BY account_id COLLATE "C", version
    ON CONFLICT (account_id, version) DO NOTHING
    RETURNING account_id, version
  )
  SELECT genuine.item::integer AS item FROM genuine JOIN inserted USING (account_id, version)`;

// A statement of its own: the snapshot of the one above is older than an entry that it collided with. A row leaves the
// outbox only when the ledger holds it, so what is in neither was never accepted.
const COMPARE = `
  WITH ${DELIVERED}
  SELECT delivered.item::integer AS item
  FROM delivered
  CROSS JOIN LATERAL (
    SELECT * FROM ledger WHERE ledger.account_id = delivered.account_id AND ledger.version = delivered.version LIMIT 1
  ) ledger
  WHERE ${changeRow('ledger')} IS NOT DISTINCT FROM ${changeRow('delivered')}`;

/**
 * Records the changes and says of each what became of it, in the order given. Repeatable: a second call with the same
 * changes finds duplicates. Throws when the database fails; then nothing, or everything, was recorded.
 */
export async function recordChanges(pool: Pool, changes: readonly Change[]): Promise<Verdict[]> {
  const recorded = await itemsOf(pool, RECORD, changes);
  const rest = changes.filter((change) => !recorded.has(change));
  const known = rest.length === 0 ? undefined : await itemsOf(pool, COMPARE, rest);
  return changes.map((change) => (recorded.has(change) ? 'recorded' : known?.has(change) ? 'duplicate' : 'forged'));
}

/** The changes that a statement names. */
async function itemsOf(pool: Pool, text: string, changes: readonly Change[]): Promise<Set<Change>> {
  const values = CHANGE_COLUMNS.map(([, , name]) =>
    changes.map((change) => {
      const value = change[name];
      return value instanceof Date ? value.toISOString() : value;
    }),
  );
  const { rows } = await pool.query<{ item: number }>(text, values);
  return new Set(rows.map(({ item }) => changes[item - 1] as Change));
}

// Of the newest: the outbox keeps what is recorded for a while.
const CHANGES_WAIT = `
  SELECT FROM (SELECT account_id, version FROM outbox ORDER BY position DESC LIMIT 100) newest
  WHERE NOT EXISTS (SELECT FROM ledger WHERE ledger.account_id = newest.account_id AND ledger.version = newest.version)
  LIMIT 1`;

/** Whether one of the last 100 accepted changes has no entry. False as well while the database does not say. */
export async function doChangesWait(pool: Pool): Promise<boolean> {
  const { rows } = await pool.query(CHANGES_WAIT).catch(() => ({ rows: [] }));
  return rows.length > 0;
}
