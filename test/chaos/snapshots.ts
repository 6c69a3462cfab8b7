// Guarantee 1 while it is under attack: every second or two one snapshot of the whole database, judged by verify and, in
// other words, by the suite itself. Counts deadlocks on the way, which sorted locks rule out.
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { type Client, openClient } from '../../src/shared/database.ts';
import { verify } from '../../src/shared/verification.ts';
import { now } from './history.ts';
import { OWN_VIEW } from './own-view.ts';

export interface Snapshots {
  taken: number;
  violations: { atMs: number; what: string }[];
  stop(): Promise<void>;
}

const PAUSE_MIN_MS = 1500;
/** Of what a snapshot took: it grows with the ledger, and the system needs the cores. */
const PAUSE_FACTOR = 3;
const OFFENDERS_MAX = 5;

export function takeSnapshots(databaseUrl: string): Snapshots {
  const stopping = new AbortController();
  const snapshots: Snapshots = {
    taken: 0,
    violations: [],
    async stop() {
      stopping.abort();
      await running;
    },
  };
  let deadlocksBefore = 0;

  async function judge(client: pg.Client): Promise<void> {
    const report = (what: string) => snapshots.violations.push({ atMs: now(), what });
    const { offenders } = await verify(client);
    for (const { accountId, problems } of offenders.slice(0, OFFENDERS_MAX)) {
      report(`verify: ${accountId}: ${problems.join('; ')}`);
    }
    await client.query('BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY');
    try {
      await client.query('LOCK TABLE outbox IN ACCESS SHARE MODE'); // TRUNCATE is not MVCC-safe
      for (const query of OWN_VIEW) {
        for (const row of (await client.query(query)).rows) report(`own view: ${JSON.stringify(row)}`);
      }
    } finally {
      await client.query('ROLLBACK');
    }
    // The counter restarts with a server that recovers.
    const query = 'SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()';
    const deadlocks: number = (await client.query(query)).rows[0].deadlocks;
    if (deadlocks > deadlocksBefore) report(`${deadlocks - deadlocksBefore} deadlocks between batches`);
    deadlocksBefore = deadlocks;
    snapshots.taken += 1;
  }

  const running = (async () => {
    while (!stopping.signal.aborted) {
      let client: Client | undefined;
      try {
        client = await openClient(databaseUrl, 'test snapshots');
        while (!stopping.signal.aborted) {
          const startedAtMs = now();
          await judge(client);
          const pauseMs = Math.max(PAUSE_MIN_MS, PAUSE_FACTOR * (now() - startedAtMs));
          await delay(pauseMs, undefined, { signal: stopping.signal }).catch(() => {});
        }
      } catch {
        await delay(100); // the database is away
      } finally {
        await client?.end().catch(() => {});
      }
    }
  })();
  return snapshots;
}
