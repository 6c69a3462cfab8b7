// SQL of the table missed for the commands that deliver the events noted there. The relay writes
// it: src/api/relay/missed.ts.
import { SettingsError } from '../../shared/config.ts';
import type { Client } from '../../shared/database.ts';

/** A queue that lacks events: it was put aside, and what it missed is not delivered yet. */
export interface PutAside {
  /** Of its rows: one, or several where it was put aside again meanwhile. */
  ids: number[];
  queue: string;
  /** Of the bindings that were removed. */
  routingKeys: string[];
  since: Date;
  /** The first position that it lacks. */
  fromPosition: number;
  /** When the change there was created. */
  from: Date;
}

/** Events that no subscriber got. */
export interface PassedOver {
  id: number;
  firstPosition: number;
  lastPosition: number;
  /** When the first and the last of them were created. */
  from: Date;
  last: Date;
  notedAt: Date;
}

const PUT_ASIDE = `
  SELECT missed_id AS id, queue, routing_keys AS "routingKeys", noted_at AS since, first_position AS "fromPosition",
         first_created_at AS "from"
  FROM missed WHERE queue IS NOT NULL AND delivered_at IS NULL AND ($1::text IS NULL OR queue = $1)
  ORDER BY queue, missed_id`;

/** @param queue undefined: every queue that was put aside. */
export async function readPutAside(client: Client, queue?: string): Promise<PutAside[]> {
  const { rows } = await client.query(PUT_ASIDE, [queue ?? null]);
  const found = new Map<string, PutAside>();
  for (const { id, ...row } of rows) {
    const one = found.get(row.queue);
    if (!one) {
      found.set(row.queue, { ...row, ids: [id] });
      continue;
    }
    one.ids.push(id);
    one.routingKeys = [...new Set([...one.routingKeys, ...row.routingKeys])];
    one.fromPosition = Math.min(one.fromPosition, row.fromPosition);
    if (row.from < one.from) one.from = row.from;
  }
  return [...found.values()];
}

const PASSED_OVER = `
  SELECT missed_id AS id, first_position AS "firstPosition", last_position AS "lastPosition", first_created_at AS "from",
         last_created_at AS last, noted_at AS "notedAt", delivered_at AS "deliveredAt"
  FROM missed WHERE queue IS NULL`;

/** Ranges that are not delivered yet. */
export async function readPassedOver(client: Client): Promise<PassedOver[]> {
  return (await client.query(`${PASSED_OVER} AND delivered_at IS NULL ORDER BY missed_id`)).rows.map(
    ({ deliveredAt: _, ...range }) => range,
  );
}

/** One of them. @throws SettingsError where it is none, or delivered already. */
export async function findPassedOver(client: Client, id: number): Promise<PassedOver> {
  const [range] = (await client.query(`${PASSED_OVER} AND missed_id = $1`, [id])).rows;
  if (!range) throw new SettingsError(`No range has the number ${id}: see highload-balance subscribers.`);
  const { deliveredAt, ...rest } = range;
  if (!deliveredAt) return rest;
  throw new SettingsError(
    `The range ${id} was delivered at ${deliveredAt.toISOString()}. To deliver it again, replay from ${range.from.toISOString()} on.`,
  );
}

// The queue is about to be bound: if it is put aside again, that gets a new note.
const END = `
  UPDATE missed
  SET last_position = greatest(first_position, (SELECT last_value FROM outbox_position)), last_created_at = clock_timestamp()
  WHERE missed_id = ANY ($1) AND last_position IS NULL`;

/** Ends the missed range here, although it is not delivered yet. */
export async function noteEnd(client: Client, ids: readonly number[]): Promise<void> {
  await client.query(END, [ids]);
}

/** Notes that it need not be delivered any more. */
export async function noteDelivered(client: Client, ids: readonly number[]): Promise<void> {
  await client.query('UPDATE missed SET delivered_at = clock_timestamp() WHERE missed_id = ANY ($1)', [ids]);
}

const DELIVERED_RANGE = `
  UPDATE missed SET delivered_at = clock_timestamp() WHERE missed_id = $1 AND last_position = $2`;

/**
 * Notes that a range is delivered. @returns false if the relay has extended it since it was read:
 * then it is not delivered.
 */
export async function noteRangeDelivered(client: Client, { id, lastPosition }: PassedOver): Promise<boolean> {
  return (await client.query(DELIVERED_RANGE, [id, lastPosition])).rowCount === 1;
}

const MAY_NOTE = `
  SELECT has_column_privilege('missed', 'delivered_at', 'UPDATE') AS "isGranted",
         current_setting('transaction_read_only') = 'off' AS "isWritable"`;

/** Before long work, at whose end it is noted. @throws SettingsError that says what to change. */
export async function checkMayNote(client: Client): Promise<void> {
  const { isGranted, isWritable } = (await client.query(MAY_NOTE)).rows[0];
  if (!isWritable) throw new SettingsError('This PostgreSQL is read-only: set DATABASE_URL to the primary.');
  if (!isGranted) {
    throw new SettingsError('This role may not record deliveries: use the DATABASE_URL of the API or of the owner.');
  }
}

// For as long as the connection lasts.
const LOCK = `SELECT pg_try_advisory_lock(hashtextextended(format('resume %s %s', 'missed'::regclass::oid, $1::text), 0)) AS locked`;

/** Only one at a time per queue: another would unbind what this one bound. @throws SettingsError */
export async function lockQueue(client: Client, queue: string): Promise<void> {
  if ((await client.query(LOCK, [queue])).rows[0].locked) return;
  throw new SettingsError(`Another process is resuming the queue ${queue} right now.`);
}
