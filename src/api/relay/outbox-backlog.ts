// How far the relay is behind, for people who watch it. A few index probes, however long the backlog.
import type { Pool } from '../../shared/database.ts';

// relay_progress is noted a few times a second, so what was done since then still counts as pending here.
const BACKLOG = `
  WITH done AS MATERIALIZED (SELECT coalesce(max(position), 0) AS position FROM relay_progress WHERE track = 'ledger')
  SELECT coalesce(newest.position - done.position, 0) AS "pendingChanges",
         coalesce(ceil(extract(epoch FROM greatest(clock_timestamp() - oldest.created_at, '0')) * 1000), 0)::bigint AS "oldestAgeMs"
  FROM done
  LEFT JOIN LATERAL (
    SELECT created_at FROM outbox WHERE position > done.position ORDER BY position LIMIT 1
  ) oldest ON true
  LEFT JOIN LATERAL (
    SELECT position FROM outbox WHERE position > done.position ORDER BY position DESC LIMIT 1
  ) newest ON true`;

export interface OutboxBacklog {
  /** Changes that are not known to be confirmed and recorded; more than there are where positions were rolled back. */
  pendingChanges: number;
  /** Age of the oldest of them; 0 when there is none. */
  oldestAgeMs: number;
}

export async function readBacklog(pool: Pool): Promise<OutboxBacklog> {
  return (await pool.query<OutboxBacklog>(BACKLOG)).rows[0] as OutboxBacklog;
}
