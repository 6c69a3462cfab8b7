// The balance of an account over its whole history, for a plot: of long histories every n-th entry,
// and the first and the last.
import type { Pool } from '../../shared/database.ts';
import { LEDGER_VERSION } from '../calls/ledger-version.ts';

/** More than a screen has columns for. */
const POINTS_MAX = 1000;

export interface BalancePoints {
  accountId: string;
  /** The last version up to which the ledger is complete; null while it lacks the first. */
  ledgerVersion: number | null;
  /** Each so many entries there is a point, counted from that version. */
  every: number;
  /** Oldest first: milliseconds since 1970, and the balance that the entry left. */
  points: [atMs: number, balance: number][];
}

// A look-up by key for each point, however long the history.
const POINTS = `
  WITH complete AS (SELECT ${LEDGER_VERSION} AS version FROM account WHERE account.account_id = $1),
  spacing AS MATERIALIZED (SELECT version, greatest(1, ceil((version + 1)::numeric / $2))::bigint AS every FROM complete),
  wanted AS (
    SELECT generate_series(version, 0, -every) AS version FROM spacing
    UNION
    SELECT 0
  )
  SELECT spacing.version AS "ledgerVersion", spacing.every,
         coalesce((
           SELECT json_agg(json_build_array(floor(extract(epoch FROM entry.created_at) * 1000), entry.balance) ORDER BY entry.version)
           FROM wanted
           CROSS JOIN LATERAL (
             SELECT * FROM ledger WHERE ledger.account_id = $1 AND ledger.version = wanted.version LIMIT 1
           ) entry
         ), '[]') AS points
  FROM spacing`;

/** Undefined when there is no such account. */
export async function readBalancePoints(pool: Pool, accountId: string): Promise<BalancePoints | undefined> {
  const [row] = (await pool.query(POINTS, [accountId, POINTS_MAX])).rows;
  return row && { accountId, ...row };
}
