// Whether PostgreSQL accepts writes. A connection to a read-only server is closed, so that the next
// one is opened and checked again: a proxy may lead to the primary by then. Left open, it would
// answer queries, fail each write, and look healthy. A statement that fails on a pool closes its
// connection in the same way.
import type { Pool } from '../shared/database.ts';

/** A standby is read-only too: in recovery each transaction is. */
const STATE = `
  SELECT pg_catalog.pg_is_in_recovery() AS "isInRecovery",
         pg_catalog.current_setting('transaction_read_only') = 'on' AS "isReadOnly"`;

/** Thrown when the server answers but accepts no writes. */
export class ReadOnlyServer extends Error {
  override name = 'ReadOnlyServer';
}

/** @throws ReadOnlyServer that says why, or what keeps the server from answering. */
export async function checkWritable(pool: Pool): Promise<void> {
  const client = await pool.connect();
  let isOfUse = false;
  try {
    const { rows } = await client.query<{ isInRecovery: boolean; isReadOnly: boolean }>(STATE);
    if (rows[0]?.isInRecovery) throw new ReadOnlyServer('it is a standby, in recovery');
    if (rows[0]?.isReadOnly) throw new ReadOnlyServer('it is read-only');
    isOfUse = true;
  } finally {
    client.release(!isOfUse);
  }
}
