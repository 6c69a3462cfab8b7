// Writes ledger entries: the only writer of the ledger table, and it only inserts.
import type { Pool } from '../shared/database.ts';
import { type BalanceChange, eventId } from '../shared/events.ts';

/**
 * - recorded: the entry is in the ledger now
 * - duplicate: the ledger held exactly this entry already
 * - forged: no accepted change says this; it was not recorded
 */
export type Verdict = 'recorded' | 'duplicate' | 'forged';

const DELIVERED = `
  delivered AS (
    SELECT *
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::timestamptz[])
      WITH ORDINALITY AS delivered (account_id, version, amount, balance, reference, actor, created_at, item)
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
    WHERE outbox.amount = delivered.amount
      AND outbox.balance = delivered.balance
      AND outbox.reference IS NOT DISTINCT FROM delivered.reference
      AND outbox.actor IS NOT DISTINCT FROM delivered.actor
      AND outbox.created_at = delivered.created_at
  )
  INSERT INTO ledger (account_id, version, amount, balance, reference, actor, created_at)
  SELECT account_id, version, amount, balance, reference, actor, created_at
  FROM genuine
  ORDER BY account_id COLLATE "C", version
  ON CONFLICT (account_id, version) DO NOTHING
  RETURNING account_id AS "accountId", version, amount, balance, reference, actor, created_at AS "createdAt"`;

// A statement of its own: the snapshot of the one above is older than an entry that it collided with. A row leaves the
// outbox only when the ledger holds it, so what is in neither was never accepted.
const COMPARE = `
  WITH ${DELIVERED}
  SELECT delivered.item::integer AS item
  FROM delivered
  CROSS JOIN LATERAL (
    SELECT * FROM ledger WHERE ledger.account_id = delivered.account_id AND ledger.version = delivered.version LIMIT 1
  ) ledger
  WHERE ledger.amount = delivered.amount
    AND ledger.balance = delivered.balance
    AND ledger.reference IS NOT DISTINCT FROM delivered.reference
    AND ledger.actor IS NOT DISTINCT FROM delivered.actor
    AND ledger.created_at = delivered.created_at`;

/**
 * Records the changes and says of each what became of it, in the order given. Repeatable: a second call with the same
 * changes finds duplicates. Throws when the database fails; then nothing, or everything, was recorded.
 */
export async function recordChanges(pool: Pool, changes: readonly BalanceChange[]): Promise<Verdict[]> {
  const inserted = await pool.query<BalanceChange>(RECORD, parameters(changes));
  const recorded = new Map(inserted.rows.map((change) => [eventId(change.accountId, change.version), change]));
  const verdicts = changes.map((change): Verdict | undefined => {
    const entry = recorded.get(eventId(change.accountId, change.version));
    return entry && isSame(entry, change) ? 'recorded' : undefined;
  });
  const rest = changes.filter((_, index) => verdicts[index] === undefined);
  if (rest.length === 0) return verdicts as Verdict[];
  const found = await pool.query<{ item: number }>(COMPARE, parameters(rest));
  const known = new Set(found.rows.map((row) => rest[row.item - 1]));
  return changes.map((change, index) => verdicts[index] ?? (known.has(change) ? 'duplicate' : 'forged'));
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

function isSame(one: BalanceChange, other: BalanceChange): boolean {
  return (
    one.amount === other.amount &&
    one.balance === other.balance &&
    one.reference === other.reference &&
    one.actor === other.actor &&
    one.createdAt.getTime() === other.createdAt.getTime()
  );
}

function parameters(changes: readonly BalanceChange[]): unknown[] {
  return [
    changes.map((change) => change.accountId),
    changes.map((change) => change.version),
    changes.map((change) => change.amount),
    changes.map((change) => change.balance),
    changes.map((change) => change.reference),
    changes.map((change) => change.actor),
    changes.map((change) => change.createdAt.toISOString()),
  ];
}
