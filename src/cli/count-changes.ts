// The amount of work for a command that goes through all changes.
import type { Client } from '../shared/database.ts';

/**
 * How many changes there are, by the versions of the accounts. Also 0 if there is no such account.
 *
 */
export async function countChanges(client: Client, accountId: string | undefined): Promise<number> {
  const { rows } = await client.query(
    'SELECT coalesce(sum(version + 1), 0)::float8 AS changes FROM account WHERE $1::text IS NULL OR account_id = $1',
    [accountId ?? null],
  );
  return rows[0].changes;
}
