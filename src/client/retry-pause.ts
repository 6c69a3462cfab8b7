// How long to wait before the next attempt.
import { backOffMs, jittered } from '../shared/back-off.ts';

const MIN_MS = 100;
const MAX_MS = 5000;

/**
 * @param failed attempts so far, from 1.
 * @param askedForMs what the service asked for at least.
 */
export function retryPauseMs(failed: number, askedForMs = 0): number {
  return jittered(backOffMs(failed, MIN_MS, MAX_MS), askedForMs);
}

/** A Retry-After header in milliseconds: seconds or an HTTP date. Undefined when it is neither. */
export function retryAfterMs(header: string | null, nowMs: number): number | undefined {
  if (header === null) return undefined;
  if (/^\d{1,9}$/.test(header)) return Number(header) * 1000;
  const atMs = Date.parse(header);
  return Number.isNaN(atMs) ? undefined : Math.max(0, atMs - nowMs);
}
