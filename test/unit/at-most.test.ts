import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { atMost } from '../../src/shared/at-most.ts';

const PER_SECOND = 20;

it('asks at once as often as it may in a second, and then at an even pace', async () => {
  let asked = 0;
  const ask = atMost(PER_SECOND, async () => {
    asked += 1;
    return asked;
  });
  const startedAtMs = performance.now();
  for (let times = 1; times <= PER_SECOND; times += 1) expect(await ask()).toBe(times);
  expect(performance.now() - startedAtMs).toBeLessThan(500);
  const atOnceUntilMs = performance.now();
  for (let times = 0; times < 10; times += 1) await ask();
  expect(performance.now() - atOnceUntilMs).toBeGreaterThan(400); // ten times 50 ms, of which some were over
  expect(asked).toBe(PER_SECOND + 10);
});

it('gives one answer to all who ask too often', async () => {
  let asked = 0;
  const ask = atMost(PER_SECOND, async () => {
    asked += 1;
    return asked;
  });
  const answers = await Promise.all(Array.from({ length: 500 }, ask));
  expect(asked).toBeLessThanOrEqual(PER_SECOND + 1);
  expect(answers.at(-1)).toBe(asked);
  await delay(1100);
  expect(await ask()).toBe(asked); // at once again
});

it('passes on a failure, and asks again', async () => {
  let asked = 0;
  const ask = atMost(PER_SECOND, async () => {
    asked += 1;
    if (asked === 1) throw new Error('away');
    return asked;
  });
  await expect(ask()).rejects.toThrow('away');
  expect(await ask()).toBe(2);
});
