import { describe, expect, it } from 'vitest';
import { Pace } from '../../src/api/calls/pace.ts';

/** Reads pages that keep the process busy for 5 ms each, one as soon as another may begin. @returns the part of the time. */
function shareOfPages(share: number, updatesPerS: number): number {
  let nowMs = 0;
  const pace = new Pace(
    share,
    () => Math.floor((nowMs * updatesPerS) / 1000),
    () => nowMs,
  );
  let busyMs = 0;
  while (nowMs < 60_000) {
    nowMs += pace.waitMs();
    pace.spend(1.25); // a quarter of the work
    nowMs += 5;
    if (nowMs > 10_000) busyMs += 5;
  }
  return busyMs / (nowMs - 10_000);
}

describe('the pace of pages', () => {
  it('leaves the rest to updates, while those come', () => {
    expect(shareOfPages(0.2, 1000)).toBeCloseTo(0.2, 1);
    expect(shareOfPages(0.5, 1000)).toBeCloseTo(0.5, 1);
  });

  it('holds nothing up where few updates come, or all may be taken', () => {
    expect(shareOfPages(0.2, 5)).toBe(1);
    expect(shareOfPages(1, 1000)).toBe(1);
  });

  it('does not count against pages what they took while no updates came', () => {
    let nowMs = 0;
    let updates = 0;
    const pace = new Pace(
      0.2,
      () => updates,
      () => nowMs,
    );
    for (; nowMs < 60_000; nowMs += 10) {
      expect(pace.waitMs()).toBe(0);
      pace.spend(5);
    }
    for (const endsAtMs = nowMs + 2000; nowMs < endsAtMs; nowMs += 10) {
      updates += 10;
      pace.waitMs();
    }
    expect(pace.waitMs()).toBeLessThan(60);
  });
});
