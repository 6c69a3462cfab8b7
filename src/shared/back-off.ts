// How long to pause before the next attempt, after failures in a row.

/**
 * Exponential, up to a bound.
 * @param failures in a row, from 1.
 * @param minMs after the first of them.
 */
export function backOffMs(failures: number, minMs: number, maxMs: number): number {
  return Math.min(maxMs, minMs * 2 ** (failures - 1));
}

/**
 * From half of a pause to all of it, so that a fleet that failed together does not come back in one wave.
 * @param atLeastMs what was asked for. The jitter comes on top: everyone was asked for the same.
 */
export function jittered(pauseMs: number, atLeastMs = 0): number {
  const halfMs = pauseMs / 2;
  return Math.round(Math.max(halfMs, atLeastMs) + halfMs * Math.random());
}
