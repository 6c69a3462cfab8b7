// Expires idempotency keys by age. Every process checks periodically; the database lets one at a
// time do it.
import type { Pool } from '../../shared/database.ts';
import type { Logger } from '../../shared/logging.ts';
import { isLockNotAvailable } from '../../shared/sqlstate.ts';

const CHECK_MS_MAX = 60_000;
/** Checks in the time that keys are kept: how exactly it is met. */
const CHECKS = 10;

/**
 * A key is kept for at least `keptMs` and, while a process runs, for about twice that at most. Call
 * the result to stop.
 */
export function startKeyExpiry(pool: Pool, keptMs: number, log: Logger): () => void {
  const timer = setInterval(
    () => {
      expireKeys(pool, keptMs).then(
        (expired) => expired && log.info('the older idempotency keys have expired'),
        (error) => log.warn({ err: error }, 'cannot expire idempotency keys; they stay until the next attempt'),
      );
    },
    Math.min(CHECK_MS_MAX, keptMs / CHECKS),
  );
  return () => clearInterval(timer);
}

/**
 * @returns whether keys were removed. Not while another session, such as a backup, holds a lock on
 * them.
 */
async function expireKeys(pool: Pool, keptMs: number): Promise<boolean> {
  try {
    const { rows } = await pool.query<{ expired: boolean }>(
      `SELECT expire_idempotency_keys($1 * interval '1 millisecond') AS expired`,
      [keptMs],
    );
    return rows[0]?.expired === true;
  } catch (error) {
    if (isLockNotAvailable(error)) return false;
    throw error;
  }
}
