// SQL that reads holds.
import type { Hold } from '../../shared/contract.ts';
import type { Pool } from '../../shared/database.ts';

/** Times as the driver gives them: they become texts in the answer. */
type StoredHold = Omit<Hold, 'expiresAt' | 'createdAt' | 'updatedAt'> & {
  expiresAt: Date | null;
  createdAt: Date;
  updatedAt: Date;
};

const COLUMNS = `
  account_id AS "accountId", hold_id AS "holdId", status, amount, captured, remaining,
  expires_at AS "expiresAt", created_at AS "createdAt", updated_at AS "updatedAt"`;

const FIND = `SELECT ${COLUMNS} FROM hold WHERE account_id = $1 AND hold_id = $2`;

export async function findHold(pool: Pool, accountId: string, holdId: string): Promise<StoredHold | undefined> {
  return (await pool.query<StoredHold>(FIND, [accountId, holdId])).rows[0];
}

const LIST = `SELECT ${COLUMNS} FROM hold WHERE account_id = $1 AND hold_id > $2 AND ($4::text IS NULL OR status = $4) ORDER BY hold_id LIMIT $3`;

// Few are active among all that an account ever had: found by the index that has those alone.
const LIST_ACTIVE = `
  WITH active AS MATERIALIZED (SELECT * FROM hold WHERE account_id = $1 AND status = 'active')
  SELECT ${COLUMNS} FROM active WHERE hold_id > $2 ORDER BY hold_id LIMIT $3`;

/** In order of id, by bytes, after `cursor`. @param status undefined: any. */
export async function listHolds(
  pool: Pool,
  accountId: string,
  status: Hold['status'] | undefined,
  cursor: string,
  limit: number,
): Promise<StoredHold[]> {
  const values = [accountId, cursor, limit];
  const { rows } =
    status === 'active'
      ? await pool.query<StoredHold>(LIST_ACTIVE, values)
      : await pool.query<StoredHold>(LIST, [...values, status ?? null]);
  return rows;
}
