import { expect, it } from 'vitest';
import { createWakeUp } from '../../src/shared/wake-up.ts';

const timers = () => process.getActiveResourcesInfo().filter((resource) => resource === 'Timeout').length;

it('wakes the one who waits, and leaves no timer that would keep the process', async () => {
  const before = timers();
  const wakeUps = Array.from({ length: 100 }, createWakeUp);
  const waits = wakeUps.map(({ wokenOr }) => wokenOr(60_000));
  for (const { wake } of wakeUps) wake();
  expect(await Promise.all(waits)).toEqual(waits.map(() => true));
  expect(timers()).toBeLessThan(before + 50);
});

it('remembers one call that came before the wait, and no more than one', async () => {
  const { wake, wokenOr } = createWakeUp();
  wake();
  wake();
  expect(await wokenOr(60_000)).toBe(true);
  expect(await wokenOr(10)).toBe(false);
});

it('ends the wait after the time, and can be waited for again', async () => {
  const { wake, wokenOr } = createWakeUp();
  expect(await wokenOr(10)).toBe(false);
  setTimeout(wake, 10);
  expect(await wokenOr(60_000)).toBe(true);
});
