// Cancels a transaction's statement as soon as another session has waited too long for its locks.
// lock_timeout limits the wait for a lock; only this limits how long an acquired lock is held while
// updates wait for it.
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { causeOf } from './migration-error.ts';
import { isCancelled } from './sqlstate.ts';

/** With the poll, the cancellation and the rollback, a session waits less than 100 ms. */
const WAIT_MAX_MS = 50;
const POLL_MS = 15;

/** Other sessions have waited too long for locks of the transaction. */
export class SessionsWait extends Error {
  override name = 'SessionsWait';
}

// The blockers of a session are only looked up for one that waits, because that stops the lock
// manager for a moment.
const CANCEL = `
  WITH waiting AS MATERIALIZED (
    SELECT DISTINCT pid FROM pg_catalog.pg_locks
    WHERE NOT granted AND waitstart < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2 / 1000.0)
  )
  SELECT pg_catalog.pg_cancel_backend($1) FROM waiting WHERE $1 = ANY (pg_catalog.pg_blocking_pids(pid)) LIMIT 1`;

/**
 * Does the work, and cancels it when other sessions wait. PostgreSQL ignores a cancellation that
 * comes between two statements, so no statement is sent after one.
 *
 * Once this has ended nothing is cancelled any more. A COMMIT must not be: while it waits for a
 * synchronous standby PostgreSQL would commit with no more than a warning, without the standby.
 * @param watcher a connection of its own, of the same role. @param pid of the client's backend.
 * @throws SessionsWait, what `work` throws, or what the watcher failed with.
 */
export async function unlessSessionsWait<Result>(
  client: pg.Client,
  watcher: pg.Client,
  pid: number,
  work: () => Promise<Result>,
): Promise<Result> {
  const over = new AbortController();
  let hasCancelled = false;
  const watch = async () => {
    while (!over.signal.aborted) {
      const { rowCount } = await watcher.query(CANCEL, [pid, WAIT_MAX_MS]);
      if (rowCount === 1) hasCancelled = true;
      await delay(POLL_MS, undefined, { signal: over.signal }).catch(() => {});
    }
  };
  const { query } = client;
  client.query = new Proxy(query, {
    apply: (target, self, args) =>
      hasCancelled
        ? Promise.reject(new SessionsWait('cancelled between two statements'))
        : Reflect.apply(target, self, args),
  });
  const watching = watch();
  watching.catch(() => {}); // thrown below
  const [outcome] = await Promise.allSettled([work()]);
  client.query = query;
  over.abort();
  await watching; // the cancelled statement can end before the answer of the one that cancelled it
  if (outcome.status === 'fulfilled') return outcome.value;
  const cause = causeOf(outcome.reason);
  if (hasCancelled && isCancelled(cause)) throw new SessionsWait('cancelled', { cause: outcome.reason });
  throw cause instanceof SessionsWait ? cause : outcome.reason;
}
