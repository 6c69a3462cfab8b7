// How far the relay lags, for monitoring. A few index probes, however long the backlog.
import type { Pool } from '../../shared/database.ts';

// relay_progress is noted a few times a second, so what was done since then still counts as pending
// here. Each partition holds positions of one block, between which many were never given.
const BACKLOG = `
  WITH done AS MATERIALIZED (
    SELECT coalesce((SELECT max(position) FROM relay_progress WHERE track = 'ledger'), 0) AS ledger,
           coalesce((SELECT max(position) FROM relay_progress WHERE track = 'subscribers'), 0) AS subscribers
  )
  SELECT coalesce((
           SELECT sum(greatest(0, partition.last - greatest(done.ledger, partition.first - 1)))
           FROM (
             SELECT min(position), max(position) FROM outbox_even UNION ALL SELECT min(position), max(position) FROM outbox_odd
           ) partition (first, last)
         ), 0)::bigint AS "pendingChanges",
         ${ageOf('ledger')} AS "oldestAgeMs",
         ${ageOf('subscribers')} AS "subscribersOldestAgeMs"
  FROM done`;

function ageOf(track: string): string {
  return `coalesce((
    SELECT ceil(extract(epoch FROM greatest(clock_timestamp() - oldest.created_at, '0')) * 1000)
    FROM (SELECT created_at FROM outbox WHERE position > done.${track} ORDER BY position LIMIT 1) oldest
  ), 0)::bigint`;
}

export interface OutboxBacklog {
  /**
   * Changes that are not known to be confirmed and recorded; more than there are where positions
   * were rolled back.
   */
  pendingChanges: number;
  /** Age of the oldest of them; 0 when there is none. */
  oldestAgeMs: number;
  /** Age of the oldest change that some subscriber may lack; 0 when there is none. */
  subscribersOldestAgeMs: number;
}

export async function readBacklog(pool: Pool): Promise<OutboxBacklog> {
  return (await pool.query<OutboxBacklog>(BACKLOG)).rows[0] as OutboxBacklog;
}
