// Ending processes that may not be our children (adopted after a crash), without ever hitting a stranger that
// got the same number since.
import { setTimeout as delay } from 'node:timers/promises';
import { processIdentity } from './process-lock.mjs';

const POLL_INTERVAL_MS = 25;

export interface KnownProcess {
  pid: number;
  identity: string;
}

/** Remembers a living process so that it can be told apart from a later one with the same number. */
export function knownProcess(pid: number): KnownProcess | undefined {
  const identity = processIdentity(pid);
  return identity === undefined ? undefined : { pid, identity };
}

export function isAlive(process: KnownProcess): boolean {
  return processIdentity(process.pid) === process.identity;
}

/** Sends the signal if that very process still lives; says whether it did. */
export function signal(known: KnownProcess, name: NodeJS.Signals): boolean {
  if (!isAlive(known)) return false;
  try {
    process.kill(known.pid, name);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

/** Waits until the process is gone; false when it still lives after `timeoutMs`. */
export async function waitForExit(known: KnownProcess, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (isAlive(known)) {
    if (performance.now() > deadline) return false;
    await delay(POLL_INTERVAL_MS);
  }
  return true;
}
