import { describe, expect, it } from 'vitest';
import { DeclineLimit } from '../../src/api/updates/decline-limit.ts';

describe('the limit of remembered declines', () => {
  function limit(declinesMax: number, keptMs: number) {
    let nowMs = 1_000_000;
    const declines = new DeclineLimit(declinesMax, keptMs, () => nowMs);
    return { declines, pass: (ms: number) => (nowMs += ms) };
  }
  const countUntilSpent = (declines: DeclineLimit, client: string) => {
    let counted = 0;
    for (; !declines.isSpent(client) && counted < 10_000; counted += 1) declines.count(client);
    return counted;
  };

  it('lets a client have so many at once, and no other less', () => {
    const { declines } = limit(100, 60_000);
    expect(countUntilSpent(declines, 'a')).toBe(100);
    expect(declines.isSpent('b')).toBe(false);
    expect(countUntilSpent(declines, 'b')).toBe(100);
  });

  it('refills over the time that they are kept', () => {
    const { declines, pass } = limit(100, 60_000);
    countUntilSpent(declines, 'a');
    pass(6000);
    expect(countUntilSpent(declines, 'a')).toBe(10);
    pass(60_000_000);
    expect(countUntilSpent(declines, 'a')).toBe(100);
  });

  it('is none where it is infinite', () => {
    const { declines } = limit(Number.POSITIVE_INFINITY, 60_000);
    expect(countUntilSpent(declines, 'a')).toBe(10_000);
  });

  it('forgets clients that declined nothing lately, and continues with the others', () => {
    const { declines, pass } = limit(100, 60_000);
    for (let client = 0; client < 3999; client += 1) declines.count(`old ${client}`);
    pass(1000);
    countUntilSpent(declines, 'a');
    for (let client = 0; client < 5000; client += 1) declines.count(`new ${client}`);
    expect(declines.isSpent('a')).toBe(true);
  });
});
