// Several API processes behind one port (node:cluster). Each has its own lanes, which is safe:
// PostgreSQL's row lock orders them. One that dies is replaced; one relay in the fleet is active,
// whichever process it is in. The rate limit is counted here, for all of them.
import cluster, { type Worker } from 'node:cluster';
import { setTimeout as delay } from 'node:timers/promises';
import { RateLimiterClusterMaster } from 'rate-limiter-flexible';
import type { Running } from '../shared/lifecycle.ts';
import type { Logger } from '../shared/logging.ts';
import { within } from '../shared/within.ts';
import { answerForMetrics } from './metrics-of-all.ts';

/** Pause before a dead process is replaced, so that one that cannot start does not use up a core. */
const RESTART_PAUSE_MS = 1000;
/** Below the time that the primary itself has to stop. */
const STOP_TIMEOUT_MS = 23_000;

/** Starts the processes and returns when all of them listen. @throws when one ends before that. */
export async function startCluster(count: number, log: Logger): Promise<Running> {
  let stopping: Promise<void> | undefined;
  new RateLimiterClusterMaster(); // answers the processes' rate limiters
  answerForMetrics();

  async function keepOne(started?: () => void, failed?: (error: Error) => void): Promise<void> {
    let onStart = started;
    while (!stopping) {
      const child = cluster.fork();
      child.once('listening', () => {
        onStart?.();
        onStart = undefined;
      });
      // Answers to a process that just died fail, possibly after its end.
      child.on('error', (error) =>
        log.debug({ err: error, apiPid: child.process.pid }, 'a message to an api process failed'),
      );
      const how = await ended(child);
      if (stopping) return;
      log.error({ apiPid: child.process.pid, how }, 'an api process ended; starting another');
      if (onStart) return failed?.(new Error(`an api process ended with ${how} before it listened`));
      await delay(RESTART_PAUSE_MS);
    }
  }

  async function stopAll(): Promise<void> {
    const children = Object.values(cluster.workers ?? {}) as Worker[];
    for (const child of children) child.process.kill('SIGTERM');
    const gone = Promise.all(children.filter((child) => !child.isDead()).map(ended));
    await within(STOP_TIMEOUT_MS, gone, () => {});
    for (const child of children) if (!child.isDead()) child.process.kill('SIGKILL');
  }

  const stop = () => {
    stopping ??= stopAll();
    return stopping;
  };
  try {
    await Promise.all(
      Array.from({ length: count }, () => new Promise<void>((started, failed) => void keepOne(started, failed))),
    );
  } catch (error) {
    await stop();
    throw error;
  }
  log.info({ processes: count }, 'all api processes listen');
  return { stop };
}

/** Its signal or exit code, or why it could not be started. */
function ended(child: Worker): Promise<string> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve(signal ?? String(code)));
    child.on('error', (error) => child.process.pid === undefined && resolve(error.message));
  });
}
