// Writes the expiry of holds on accounts that are not otherwise changed. Every process checks each
// second; they do not wait for each other.
import type { Pool } from '../../shared/database.ts';
import type { Logger } from '../../shared/logging.ts';

const CHECK_MS = 1000;
/** In one statement: it holds the locks of their accounts for about 10 ms. */
const HOLDS_MAX = 1000;

/** @param onExpiry after new changes. Call the result to stop. */
export function startHoldSweep(pool: Pool, onExpiry: () => void, log: Logger): () => Promise<void> {
  let stopped = false;
  let timer: NodeJS.Timeout | undefined;
  let sweeping = Promise.resolve();

  async function sweep(): Promise<void> {
    try {
      let expired: number;
      do {
        const { rows } = await pool.query<{ expired: number }>('SELECT sweep_due_holds($1) AS expired', [HOLDS_MAX]);
        expired = rows[0]?.expired ?? 0;
        if (expired > 0) onExpiry();
      } while (expired === HOLDS_MAX && !stopped);
    } catch (error) {
      log.warn({ err: error }, 'cannot write the expiry of holds; the next attempt is in a second');
    }
    plan();
  }

  function plan(): void {
    if (stopped) return;
    timer = setTimeout(() => {
      sweeping = sweep();
    }, CHECK_MS);
  }

  plan();
  return async () => {
    stopped = true;
    clearTimeout(timer);
    await sweeping;
  };
}
