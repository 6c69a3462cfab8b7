// Moves the outbox on to its next partition every few seconds, as 262,144 changes would: the run would hardly see one turn.
import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from '../../src/shared/database.ts';

const EVERY_MS = 4000;

// Far enough ahead that nobody gets there first: a sequence may skip, and must never go back.
const TURN = `SELECT setval('outbox_position', (((last_value + 100000) >> 18) + 1) << 18) FROM outbox_position`;

export async function turnOutbox(pool: Pool): Promise<void> {
  await pool.query(TURN);
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
