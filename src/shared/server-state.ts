// Checks whether a server that answers accepts writes now, at almost no cost.
import { type Pool, reasonOf } from './database.ts';
import { refusalOfChanges, type WriteState } from './session-settings.ts';
import { isTemporaryFileTooLarge, isWithoutRoom } from './sqlstate.ts';

const WRITE_STATE = `
  SELECT pg_is_in_recovery() AS "isInRecovery", current_setting('default_transaction_read_only') = 'on' AS "isReadOnly"`;

/**
 * Makes PostgreSQL write 190 kB where its tables are, to a file that is gone with the statement: on
 * a full disk that fails like the growth of a table. It needs no transaction id, lock or privilege,
 * and writes no WAL. An INSERT that is rolled back proves less: it may find room in an existing
 * page.
 */
const ROOM = `
  SET LOCAL work_mem = 64;
  SET LOCAL temp_tablespaces = '';
  WITH filler AS MATERIALIZED (SELECT repeat('-', 8000) AS text FROM generate_series(1, 24)) SELECT count(text) FROM filler`;

/**
 * Why the server accepts no writes, in a few words; undefined if it does.
 * @throws the error of PostgreSQL or the connection.
 */
export async function refusalOfServer(pool: Pool): Promise<string | undefined> {
  const { rows } = await pool.query<WriteState>(WRITE_STATE);
  const refusal = refusalOfChanges(rows[0] as WriteState);
  if (refusal !== undefined) return `cannot be used: ${refusal}`;
  try {
    await pool.query(ROOM);
  } catch (error) {
    if (isWithoutRoom(error)) return `cannot write: ${reasonOf(error)}`;
    // Where the operator limits temporary files to less than that, nothing is known.
    if (!isTemporaryFileTooLarge(error)) throw error;
  }
  return undefined;
}
