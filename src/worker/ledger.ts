// Writes ledger entries: the only writer of the ledger table, and it only inserts.
import { type Literal, texts, textsIn, words } from '../shared/array-literals.ts';
import { CHANGE_COLUMN_NAMES, CHANGE_COLUMNS, type Change, changeRow } from '../shared/change.ts';
import type { Pool } from '../shared/database.ts';
import { MESSAGE_EVENTS_MAX } from '../shared/message-bounds.ts';
import { checkWritable } from './writable.ts';

/**
 * - recorded: the entry is in the ledger now
 * - duplicate: the ledger held exactly this entry already
 * - superseded: the event may belong to a history that the database lost; it was not recorded
 * - forged: the event matches no accepted change; it was not recorded
 */
export type Verdict = 'recorded' | 'duplicate' | 'superseded' | 'forged';

const DELIVERED = `
  unnest(${CHANGE_COLUMNS.map(([, type], index) => (type === 'text' ? textsIn(`$${index + 1}`) : `$${index + 1}::${type}[]`)).join(', ')})
    WITH ORDINALITY AS delivered (${CHANGE_COLUMN_NAMES}, item)`;

// LATERAL with LIMIT 1, here and below, forces a look-up by key, whatever the statistics say about
// a table that was empty yesterday.
//
// An event only counts if it matches the outbox: being able to publish to the exchange must not be
// enough to write history. So the entry is the outbox's row, and the event is only compared with
// it. Sorted by key, so that two workers insert in one order and never deadlock.
//
// The keys are returned only if some are missing: a row for each entry would cost a tenth of the
// statement. Prepared once for each connection: planning it costs as much as 30 entries.
const RECORD = {
  name: 'ledger_record',
  text: `
    WITH inserted AS (
      INSERT INTO ledger (${CHANGE_COLUMN_NAMES})
      SELECT ${CHANGE_COLUMNS.map(([column]) => `outbox.${column}`).join(', ')}
      FROM ${DELIVERED}
      CROSS JOIN LATERAL (
        SELECT * FROM outbox WHERE outbox.account_id = delivered.account_id AND outbox.version = delivered.version LIMIT 1
      ) outbox
      WHERE ${changeRow('outbox')} IS NOT DISTINCT FROM ${changeRow('delivered')}
      ORDER BY outbox.account_id COLLATE "C", outbox.version
      ON CONFLICT (account_id, version) DO NOTHING
      RETURNING account_id, version
    )
    SELECT count(*)::integer AS count,
           CASE WHEN count(*) < cardinality($2::bigint[]) THEN array_to_json(array_agg(account_id)) END AS "accountIds",
           CASE WHEN count(*) < cardinality($2::bigint[]) THEN array_to_json(array_agg(version)) END AS versions
    FROM inserted`,
};

// A separate statement: the one above has a snapshot from before the entry that it collided with
// was committed. A row leaves the outbox only when the ledger holds it, so a change in neither was
// never accepted.
const COMPARE = {
  name: 'ledger_compare',
  text: `
    SELECT delivered.item::integer AS item
    FROM ${DELIVERED}
    CROSS JOIN LATERAL (
      SELECT * FROM ledger WHERE ledger.account_id = delivered.account_id AND ledger.version = delivered.version LIMIT 1
    ) ledger
    WHERE ${changeRow('ledger')} IS NOT DISTINCT FROM ${changeRow('delivered')}`,
};

// Events in neither table count as superseded only if a history that a failover or restore cut off
// can contain them:
//   - The cut raised the epoch, so what was lost has a lower epoch than the present one, and never
//     a lower one than our oldest.
//   - If our change of that version has the same epoch, it was there before that epoch ended, so no
//     history gave that version and epoch to another change.
//   - If our change of that version has a lower epoch, and the event's epoch is in our history, our
//     change was there when that epoch began. If that epoch is not in our history, it was lost with
//     its change: a failover happened, and then a return to the earlier server.
// Anyone who may publish can forge an older epoch, but gains nothing: none of these events is
// recorded.
const SUPERSEDED = {
  name: 'ledger_superseded',
  text: `
    SELECT delivered.item::integer AS item
    FROM unnest(${textsIn('$1')}, $2::bigint[], $3::bigint[]) WITH ORDINALITY AS delivered (account_id, version, epoch, item)
    WHERE delivered.epoch < $4 AND delivered.epoch >= (SELECT min(epoch) FROM epoch)
      AND NOT EXISTS (
        SELECT FROM (
          (SELECT epoch FROM outbox WHERE outbox.account_id = delivered.account_id AND outbox.version = delivered.version LIMIT 1)
          UNION ALL
          (SELECT epoch FROM ledger WHERE ledger.account_id = delivered.account_id AND ledger.version = delivered.version LIMIT 1)
        ) ours
        WHERE ours.epoch = delivered.epoch
          OR ours.epoch < delivered.epoch AND EXISTS (SELECT FROM epoch WHERE epoch.epoch = delivered.epoch)
      )`,
};

/**
 * Records the changes and returns the outcome of each, in the order given. Idempotent: a second
 * call with the same changes finds duplicates. Throws when the database fails; then nothing, or
 * everything, was recorded.
 */
export async function recordChanges(pool: Pool, changes: readonly Change[]): Promise<Verdict[]> {
  const values = valuesOf(changes);
  const { count, accountIds, versions } = (await pool.query<Inserted>({ ...RECORD, values })).rows[0] as Inserted;
  if (count === changes.length) return changes.map(() => 'recorded');
  const inserted = new Set(accountIds?.map((accountId, index) => `${accountId} ${versions?.[index]}`));
  const known = await itemsOf(pool, COMPARE, changes, values);
  const unknown = changes.filter((change) => !known.has(change));
  const superseded = await supersededOf(pool, unknown);
  return changes.map((change) => {
    // If a change was delivered twice, the first delivery made the entry.
    if (known.has(change)) return inserted.delete(`${change.accountId} ${change.version}`) ? 'recorded' : 'duplicate';
    return superseded.has(change) ? 'superseded' : 'forged';
  });
}

interface Inserted {
  count: number;
  /** The keys of what was inserted; null if everything was. */
  accountIds: string[] | null;
  versions: number[] | null;
}

/** Which of these changes, none of which the database knows, are superseded. */
async function supersededOf(pool: Pool, unknown: readonly Change[]): Promise<Set<Change>> {
  if (unknown.length === 0) return new Set();
  // Calls current_epoch() instead of reading the table: a promoted or restored server raises the
  // epoch on the first call, which may be this one.
  const { rows } = await pool.query<{ present: number }>('SELECT current_epoch() AS present');
  return itemsOf(pool, SUPERSEDED, unknown, [
    texts(unknown.map(({ accountId }) => accountId)),
    words(unknown.map(({ version }) => version)),
    words(unknown.map(({ epoch }) => epoch)),
    rows[0]?.present,
  ]);
}

/**
 * The parameters of {@link DELIVERED}. A column without values is null: unnest() pads it with
 * nulls.
 */
function valuesOf(changes: readonly Change[]): Literal[] {
  return CHANGE_COLUMNS.map(([, type, name]) => {
    const values = changes.map((change) => change[name]);
    if (values.every((value) => value === null)) return null;
    if (type === 'text') return texts(values as (string | null)[]);
    if (type === 'bigint') return words(values as (number | null)[]);
    return words((values as (Date | null)[]).map((value) => value?.toISOString() ?? null));
  });
}

/** The changes whose items a statement returns. */
async function itemsOf(
  pool: Pool,
  statement: { name: string; text: string },
  changes: readonly Change[],
  values: unknown[],
): Promise<Set<Change>> {
  const { rows } = await pool.query<{ item: number }>({ ...statement, values });
  return new Set(rows.map(({ item }) => changes[item - 1] as Change));
}

/**
 * Only the newest are looked at, since the outbox keeps recorded changes for a while. Ten full
 * messages: several workers get messages in turn, so messages that one of them fails to get are
 * among these.
 */
const NEWEST = 10 * MESSAGE_EVENTS_MAX;
const CHANGES_WAIT = `
  SELECT FROM (SELECT account_id, version FROM outbox ORDER BY position DESC LIMIT ${NEWEST}) newest
  WHERE NOT EXISTS (SELECT FROM ledger WHERE ledger.account_id = newest.account_id AND ledger.version = newest.version)
  LIMIT 1`;

/**
 * Whether one of the newest accepted changes has no entry. Also false while the database does not
 * answer.
 */
export async function doChangesWait(pool: Pool): Promise<boolean> {
  try {
    await checkWritable(pool); // a standby may lack the newest, and the connection must not be kept
    const { rows } = await pool.query(CHANGES_WAIT);
    return rows.length > 0;
  } catch {
    return false;
  }
}
