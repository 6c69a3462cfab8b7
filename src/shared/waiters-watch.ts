// Cancels a transaction's statement as soon as another session has waited too long for its locks.
// lock_timeout limits the wait for a lock; only this limits how long an acquired lock is held while
// updates wait for it.
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';

/** With the poll, the cancellation and the rollback, a session waits less than 100 ms. */
const WAIT_MAX_MS = 50;
const POLL_MS = 15;

export interface WaitersWatch {
  /** Whether it has cancelled since the last call. */
  hasCancelled: () => Promise<boolean>;
  /**
   * Returns when nothing will be cancelled any more. @throws what the connection of the watch
   * failed with.
   */
  stop: () => Promise<void>;
}

// The blockers of a session are only looked up for one that waits, because that stops the lock
// manager for a moment.
const CANCEL = `
  WITH waiting AS MATERIALIZED (
    SELECT DISTINCT pid FROM pg_catalog.pg_locks
    WHERE NOT granted AND waitstart < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2 / 1000.0)
  )
  SELECT pg_catalog.pg_cancel_backend($1) FROM waiting WHERE $1 = ANY (pg_catalog.pg_blocking_pids(pid)) LIMIT 1`;

/** @param watcher a connection of its own, of the same role. @param pid of the backend to cancel. */
export function watchWaiters(watcher: pg.Client, pid: number): WaitersWatch {
  const stopping = new AbortController();
  let isCancelled = false;
  let look: Promise<void> = Promise.resolve();
  const watching = (async () => {
    while (!stopping.signal.aborted) {
      look = watcher.query(CANCEL, [pid, WAIT_MAX_MS]).then(({ rowCount }) => {
        if (rowCount === 1) isCancelled = true;
      });
      await look;
      await delay(POLL_MS, undefined, { signal: stopping.signal }).catch(() => {});
    }
  })();
  watching.catch(() => {}); // stop() reports it
  return {
    hasCancelled: async () => {
      await look.catch(() => {}); // the cancelled statement can end before the answer of the one that cancelled it
      const wasCancelled = isCancelled;
      isCancelled = false;
      return wasCancelled;
    },
    stop: async () => {
      stopping.abort();
      await watching;
    },
  };
}
