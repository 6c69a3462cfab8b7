import fc from 'fast-check';
import { expect, it } from 'vitest';
import { backOffMs, retryAfterMs } from '../../src/client/back-off.ts';

const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

it('grows from 50-100 ms to 2.5-5 s, never shorter than what the service asked for', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 10_000 }), fc.nat(120_000), random, (failed, askedForMs, chance) => {
      const full = Math.min(5000, 100 * 2 ** (failed - 1));
      const waitMs = backOffMs(failed, askedForMs, () => chance);
      expect(waitMs).toBeGreaterThanOrEqual(Math.max(full / 2, askedForMs));
      expect(waitMs).toBeLessThanOrEqual(Math.max(full, askedForMs + full / 2));
    }),
  );
});

it('spreads clients that were all asked for the same wait', () => {
  expect(new Set(Array.from({ length: 100 }, () => backOffMs(4, 1000))).size).toBeGreaterThan(50);
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
