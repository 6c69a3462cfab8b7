// Which wall times fit what happened between two moments, whatever steps the wall clock made.
import { expect, it } from 'vitest';
import { WallClock } from '../chaos/wall-clock.ts';

const BASE = Date.parse('2026-12-01T05:00:00Z');

/** Read every 100 ms of 10 s, by a clock that steps in the middle. */
function stepping(stepMs: number): WallClock {
  const clock = new WallClock();
  for (let ms = 0; ms <= 10_000; ms += 100) clock.read(ms, BASE + ms + (ms >= 5000 ? stepMs : 0));
  return clock;
}

const between = (clock: WallClock, startMs: number, endMs: number) => {
  const { earliestMs, latestMs } = clock.between(startMs, endMs);
  return [earliestMs - BASE, latestMs - BASE];
};

it('follows a clock that steps forward: before, across and after', () => {
  const clock = stepping(60_000);
  expect(between(clock, 1000, 1200)).toEqual([1000, 1200]);
  expect(between(clock, 4900, 5100)).toEqual([4900, 65_100]);
  expect(between(clock, 7000, 7200)).toEqual([67_000, 67_200]);
});

it('follows a clock that is set back, and allows for times that do not go back with it', () => {
  const clock = stepping(-3000);
  expect(between(clock, 1000, 1200)).toEqual([1000, 1200]);
  expect(between(clock, 4900, 5100)).toEqual([1900, 5100]);
  expect(between(clock, 7000, 7200)).toEqual([4000, 7200]);
});

it('takes no two readings for a step', () => {
  const clock = new WallClock();
  for (let ms = 0; ms <= 1000; ms += 100) clock.read(ms, BASE + ms + (ms % 3) * 20);
  expect(between(clock, 900, 950)).toEqual([900, 950]);
});
