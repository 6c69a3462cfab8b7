import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { inTime } from '../../src/shared/in-time.ts';
import { within } from '../../src/shared/within.ts';

const timers = () => process.getActiveResourcesInfo().filter((resource) => resource === 'Timeout').length;
const never = () => new Promise<never>(() => {});
const failing = () => Promise.reject(new Error('it failed'));

it('gives what comes in time, or its failure, and leaves no timer that would keep the process', async () => {
  const before = timers();
  for (let times = 0; times < 100; times += 1) {
    expect(await within(60_000, Promise.resolve('in time'), () => 'late')).toBe('in time');
    await expect(within(60_000, failing(), () => 'late')).rejects.toThrow('it failed');
  }
  expect(timers()).toBeLessThan(before + 100);
});

it('gives what is to be given when the time is over, or fails as it says', async () => {
  expect(await within(10, never(), () => 'late')).toBe('late');
  const tooLate = within(10, never(), () => {
    throw new Error('too late');
  });
  await expect(tooLate).rejects.toThrow('too late');
});

it('does not leave a failure unhandled that comes after the time', async () => {
  const unhandled: unknown[] = [];
  const note = (error: unknown) => unhandled.push(error);
  process.on('unhandledRejection', note);
  try {
    expect(await within(10, delay(30).then(failing), () => 'late')).toBe('late');
    await delay(60);
  } finally {
    process.off('unhandledRejection', note);
  }
  expect(unhandled).toEqual([]);
});

it('has one question in flight at a time, and each who asks waits for it no longer than the time', async () => {
  let asked = 0;
  let answer = (_: string) => {};
  const ask = inTime(() => {
    asked += 1;
    return new Promise<string>((resolve) => {
      answer = resolve;
    });
  }, 20);
  expect(await Promise.all([ask(), ask()])).toEqual([undefined, undefined]);
  const third = ask();
  answer('at last');
  expect(await third).toBe('at last');
  expect(asked).toBe(1);
});

it('takes a failure for no answer', async () => {
  expect(await inTime(failing, 60_000)()).toBeUndefined();
});
