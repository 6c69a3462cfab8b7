// Has writers go on in the other partition of the outbox every few seconds, whatever the relay does: more often than it would.
import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from '../../src/shared/database.ts';

const EVERY_MS = 4000;

export async function turnOutbox(pool: Pool): Promise<void> {
  await pool.query('SELECT switch_outbox_partition()');
}

export function keepTurning(pool: Pool): { stop(): Promise<void> } {
  const stopping = new AbortController();
  const turning = (async () => {
    while (!stopping.signal.aborted) {
      await delay(EVERY_MS, undefined, { signal: stopping.signal }).catch(() => {});
      await turnOutbox(pool).catch(() => {}); // the database is away
    }
  })();
  return {
    async stop() {
      stopping.abort();
      await turning;
    },
  };
}
