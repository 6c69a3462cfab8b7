// Ending processes that may not be our children (adopted after a crash), without ever hitting an
// unrelated process that got the same id since.
import { setTimeout as delay } from 'node:timers/promises';
import type { KnownProcess } from '../shared/runtime.ts';
import { processIdentity } from './process-lock.mjs';

const POLL_INTERVAL_MS = 25;

/** Remembers a living process so that it can be distinguished from a later one with the same id. */
export function knownProcess(pid: number): KnownProcess | undefined {
  const identity = processIdentity(pid);
  return identity === undefined ? undefined : { pid, identity };
}

export function isAlive(process: KnownProcess): boolean {
  return processIdentity(process.pid) === process.identity;
}

/** Sends the signal if exactly that process still lives; returns whether it did. */
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
