// When each API key was used last, to about a minute. A request only notes it in memory: what was
// noted is written every half minute, in one statement that waits for no lock, and at most once a
// minute per key by all processes together.
import type { Pool } from '../../shared/database.ts';
import { inTime } from '../../shared/in-time.ts';
import type { Running } from '../../shared/lifecycle.ts';
import type { Logger } from '../../shared/logging.ts';

const WRITE_EVERY_MS = 30_000;
/** How long a stop waits for the last ones to be written. */
const LAST_WRITE_MS_MAX = 2000;

// SKIP LOCKED: another process is writing the same key at this moment. The row keeps its place in all indexes (HOT).
const WRITE = `
  WITH noted AS (
    SELECT key_id, clock_timestamp() - ago_ms * interval '1 millisecond' AS used_at
    FROM unnest($1::text[], $2::float8[]) AS noted (key_id, ago_ms)
  ),
  due AS (
    SELECT key_id, used_at
    FROM api_key JOIN noted USING (key_id)
    WHERE last_used_at IS NULL OR last_used_at <= used_at - interval '1 minute'
    FOR NO KEY UPDATE OF api_key SKIP LOCKED
  )
  UPDATE api_key SET last_used_at = due.used_at FROM due WHERE api_key.key_id = due.key_id`;

export interface LastUses extends Running {
  /** Only for keys in the table, which bounds the memory. */
  note(keyId: string): void;
}

export function startLastUses(pool: Pool, log: Logger, writeEveryMs = WRITE_EVERY_MS): LastUses {
  /** By key id, by performance.now(): since the last writing. */
  let noted = new Map<string, number>();
  let failing = false;

  async function write(): Promise<void> {
    if (noted.size === 0) return;
    const writing = noted;
    noted = new Map();
    const nowMs = performance.now();
    try {
      await pool.query(WRITE, [[...writing.keys()], [...writing.values()].map((usedAtMs) => nowMs - usedAtMs)]);
      failing = false;
    } catch (error) {
      if (!failing) log.warn({ err: error }, 'the last use of API keys cannot be written; retrying');
      failing = true;
      noted = new Map([...writing, ...noted]); // what was noted meanwhile is later
    }
  }

  // Never two at once: a statement that waits is the only one.
  const writeInTime = inTime(write, LAST_WRITE_MS_MAX);
  const timer = setInterval(() => void writeInTime(), writeEveryMs);
  return {
    note: (keyId) => void noted.set(keyId, performance.now()),
    async stop() {
      clearInterval(timer);
      await writeInTime(); // perhaps one in flight, which lacks what was noted since
      await writeInTime();
    },
  };
}
