import fc from 'fast-check';
import { expect, it } from 'vitest';
import { retryAfterMs, retryPauseMs } from '../../src/client/retry-pause.ts';
import { backOffMs, jittered } from '../../src/shared/back-off.ts';

it.each([
  [1, 200],
  [2, 400],
  [3, 800],
  [6, 5000],
  [1_000_000, 5000],
])('doubles the pause with each failure, up to a bound: %d in a row, %d ms', (failures, expected) => {
  expect(backOffMs(failures, 200, 5000)).toBe(expected);
});

it('spreads a fleet over half of the pause, never shorter than what was asked for', () => {
  fc.assert(
    fc.property(fc.nat(60_000), fc.nat(120_000), (pauseMs, askedForMs) => {
      const waitMs = jittered(pauseMs, askedForMs);
      expect(waitMs).toBeGreaterThanOrEqual(Math.floor(Math.max(pauseMs / 2, askedForMs)));
      expect(waitMs).toBeLessThanOrEqual(Math.ceil(Math.max(pauseMs, askedForMs + pauseMs / 2)));
    }),
  );
  for (const askedForMs of [0, 1000]) {
    const waits = Array.from({ length: 200 }, () => jittered(800, askedForMs));
    expect(new Set(waits).size).toBeGreaterThan(50);
  }
});

it('has the client pause for 50-100 ms at first and for 2.5-5 s in the end, and for longer where it is asked to', () => {
  for (const [failed, askedForMs, minMs, maxMs] of [
    [1, 0, 50, 100],
    [10_000, 0, 2500, 5000],
    [1, 120_000, 120_000, 120_050],
  ] as const) {
    const waitMs = retryPauseMs(failed, askedForMs);
    expect(waitMs).toBeGreaterThanOrEqual(minMs);
    expect(waitMs).toBeLessThanOrEqual(maxMs);
  }
});

it.each([
  ['2', 2000],
  ['0', 0],
  ['Mon, 23 Nov 2026 20:00:05 GMT', 5000],
  ['Mon, 23 Nov 2026 19:00:00 GMT', 0],
  ['soon', undefined],
  ['', undefined],
  [null, undefined],
])('reads Retry-After %j as %j ms', (header, expected) => {
  expect(retryAfterMs(header, Date.parse('2026-11-23T20:00:00Z'))).toBe(expected);
});
