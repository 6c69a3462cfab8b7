// The rounds of the benchmark end, however busy the machine is.
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { Run } from '../bench/measure.ts';
import { measureRounds } from '../bench/rounds.ts';
import { nameOf, ours, quickPlan, type Variant } from '../bench/variants.ts';

const RUN_MS = 20;

/** As on a machine where others use so much of it. */
const measuring = (foreignShare: number) => async (variant: Variant) => {
  await delay(RUN_MS);
  return {
    name: nameOf(variant),
    acceptedPerSecond: 1,
    p50Ms: 1,
    p99Ms: 1,
    problems: [] as string[],
    foreignShare,
  } as Run;
};

it('makes every run of the plan when nobody disturbs it', async () => {
  const plan = [
    { variant: ours(), rounds: 2 },
    { variant: ours({ keys: true }), rounds: 1 },
  ];
  const runs = await measureRounds(plan, measuring(0), { limitMs: 60_000, pauseMs: 0 }, () => undefined);
  expect(runs.map(({ name }) => name)).toEqual([ours(), ours({ keys: true }), ours()].map(nameOf));
});

it('repeats a disturbed run twice where there is time', async () => {
  const lines: string[] = [];
  const plan = [{ variant: ours(), rounds: 1 }];
  await measureRounds(plan, measuring(0.5), { limitMs: 60_000, pauseMs: 0 }, (line) => lines.push(line));
  expect(lines.filter((line) => line.includes('others used 50 % of the machine'))).toHaveLength(3);
});

it('repeats nothing where the rest would not fit in, and begins no run when the time is over', async () => {
  const lines: string[] = [];
  const startedAtMs = performance.now();
  const times = { limitMs: 10 * RUN_MS, pauseMs: RUN_MS };
  const runs = await measureRounds(quickPlan(2), measuring(0.5), times, (line) => lines.push(line));
  expect(performance.now() - startedAtMs).toBeLessThan(1_000);
  expect(runs.length).toBeGreaterThan(0);
  expect(runs.length).toBeLessThanOrEqual(10);
  expect(lines.filter((line) => line.includes('others used'))).toHaveLength(runs.length); // each was made once
  expect(lines.at(-1)).toMatch(/minutes are over: \d+ of \d+ runs were not made$/);
});
