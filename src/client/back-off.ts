// How long to wait before the next attempt.

const MIN_MS = 100;
const MAX_MS = 5000;

/**
 * Exponential: from half of it to all of it, so that clients that failed together do not come back together.
 * @param failed attempts so far, from 1.
 * @param askedForMs what the service asked for at least. The jitter comes on top: everyone was asked for the same.
 */
export function backOffMs(failed: number, askedForMs = 0, random: () => number = Math.random): number {
  const half = Math.min(MAX_MS, MIN_MS * 2 ** (failed - 1)) / 2;
  return Math.round(Math.max(half, askedForMs) + half * random());
}

/** A Retry-After header in milliseconds: seconds or an HTTP date. Undefined when it is neither. */
export function retryAfterMs(header: string | null, nowMs: number): number | undefined {
  if (header === null) return undefined;
  if (/^\d{1,9}$/.test(header)) return Number(header) * 1000;
  const atMs = Date.parse(header);
  return Number.isNaN(atMs) ? undefined : Math.max(0, atMs - nowMs);
}
