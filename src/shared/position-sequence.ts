// Logical replication copies tables and no sequences: the next position would then be one that the
// outbox has, and every update would fail.
import type pg from 'pg';

/** Only ever moves forward. The next position has to be above every existing one. */
const RAISE = `
  SELECT setval('outbox_position', newest.position) AS position
  FROM (SELECT max(position) AS position FROM outbox) newest, outbox_position
  WHERE newest.position >= outbox_position.last_value + outbox_position.is_called::integer`;

/** @returns a sentence that says what was done, or nothing. */
export async function raisePositions(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query(RAISE);
  return rows.map(({ position }) => `outbox_position would have repeated positions: set to ${position}`);
}
