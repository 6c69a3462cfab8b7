// Restarts a server of ours that died while the system runs: on its port, with its data. Its
// clients reconnect.
import { setTimeout as delay } from 'node:timers/promises';

const WATCH_INTERVAL_MS = 500;
// One that dies this often within one run will not recover by itself.
const REVIVALS_MAX = 10;

export interface Revival {
  isRunning: () => boolean;
  start: () => Promise<void>;
}

/**
 * Watches until the returned function is called, which waits for a start in progress. Does nothing
 * without `revival`.
 */
export function keepAlive(
  name: string,
  revival: Revival | undefined,
  say: (line: string) => void,
  givenUp: AbortController,
): () => Promise<void> {
  if (!revival) return () => Promise.resolve();
  const stopped = new AbortController();
  const watching = watch(name, revival, say, stopped.signal).catch((error) => {
    if (!stopped.signal.aborted) givenUp.abort(error);
  });
  return async () => {
    stopped.abort();
    await watching;
  };
}

async function watch(name: string, revival: Revival, say: (line: string) => void, stopped: AbortSignal): Promise<void> {
  for (let revivals = 0; revivals < REVIVALS_MAX; ) {
    await delay(WATCH_INTERVAL_MS, undefined, { signal: stopped });
    if (revival.isRunning()) continue;
    revivals += 1;
    say(`${name} ended unexpectedly; restarting it`);
    await revival.start();
    say(`${name} is back`);
  }
  throw new Error(`${name} ended ${REVIVALS_MAX} times unexpectedly`);
}
