// What real brokers do too seldom for a test on them: a queue that lost sight of its consumer's node for a moment delivers
// again what that consumer has in hand, on the same channel.
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { BalanceEvent } from '../../src/client/events.ts';
import { createInOrder } from '../../src/client/in-order.ts';

it('acknowledges the newest delivery of an event in hand after it was handled, and the older one as a repeat', async () => {
  let finish = () => {};
  const handled: string[] = [];
  const inOrder = createInOrder(
    {
      async handle({ id }) {
        await new Promise<void>((resolve) => (finish = resolve));
        handled.push(id);
      },
      lastVersion: async () => 0,
      onGap: () => 'wait',
    },
    { concurrency: 1, prefetch: 10, gapTimeoutMs: 1000 },
    () => {},
  );
  const event = { id: 'a:1:1', data: { accountId: 'a', version: 1, epoch: 1, amount: 1, balance: 1 } } as BalanceEvent;
  const done: string[] = [];
  const deliver = (name: string) =>
    inOrder.take({ events: [event], redelivered: false, replayed: false, done: () => done.push(name) });
  deliver('first');
  await delay(10);
  deliver('second');
  await delay(10);
  expect(done).toEqual(['first']);
  expect(handled).toEqual([]);
  finish();
  await delay(10);
  expect(handled).toEqual(['a:1:1']);
  expect(done).toEqual(['first', 'second']);
  await inOrder.stop();
});
