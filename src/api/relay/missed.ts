// SQL of the table missed: events that subscribers did not get, noted before they are passed over.

import type { BoundQueue } from '../../shared/broker-management.ts';
import type { Pool } from '../../shared/database.ts';

// One row for what follows one another.
const NOTE_RANGE = `
  WITH extended AS (
    UPDATE missed
    SET last_position = $2, first_created_at = least(missed.first_created_at, edge.first_created_at),
        last_created_at = greatest(missed.last_created_at, edge.last_created_at)
    FROM (
      SELECT min(created_at) AS first_created_at, max(created_at) AS last_created_at
      FROM outbox WHERE position > $1 AND position <= $2
    ) edge
    WHERE queue IS NULL AND last_position = $1 AND delivered_at IS NULL
    RETURNING missed_id
  )
  INSERT INTO missed (first_position, last_position, first_created_at, last_created_at)
  SELECT $1::bigint + 1, $2, min(created_at), max(created_at) FROM outbox
  WHERE position > $1 AND position <= $2 AND NOT EXISTS (SELECT FROM extended)
  HAVING count(*) > 0`;

/** Positions above `above` up to `upTo` will not be published to subscribers any more. */
export async function noteMissedRange(database: Pool, above: number, upTo: number): Promise<void> {
  await database.query(NOTE_RANGE, [above, upTo]);
}

// A queue that was put aside before and was bound again has missed everything since the first time.
const NOTE_QUEUE = `
  INSERT INTO missed (queue, routing_keys, first_position, first_created_at)
  SELECT $1, $2, $3, coalesce((SELECT created_at FROM outbox WHERE position >= $3 ORDER BY position LIMIT 1), clock_timestamp())
  WHERE NOT EXISTS (SELECT FROM missed WHERE queue = $1 AND last_position IS NULL AND delivered_at IS NULL)`;

/** A queue gets nothing from a position on. */
export async function noteQueuePutAside(database: Pool, queue: BoundQueue, fromPosition: number): Promise<void> {
  await database.query(NOTE_QUEUE, [queue.name, queue.routingKeys, fromPosition]);
}

const UNDELIVERED = `
  SELECT count(DISTINCT queue) AS queues_put_aside, count(*) FILTER (WHERE queue IS NULL) AS ranges_passed_over
  FROM missed WHERE delivered_at IS NULL`;

/** Entries that were not delivered yet, by kind. */
export async function readMissed(database: Pool): Promise<{ queues_put_aside: number; ranges_passed_over: number }> {
  return (await database.query(UNDELIVERED)).rows[0];
}
