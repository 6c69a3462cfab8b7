// What real brokers do too seldom for a test on them: a queue that lost sight of its consumer's
// node for a moment delivers again what that consumer has in hand, on the same channel.
import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { BalanceEvent, Handled } from '../../src/client/events.ts';
import { createInOrder } from '../../src/client/in-order.ts';

it('acknowledges the newest delivery of an event in hand after it was handled, and the older one as a duplicate', async () => {
  let finish = () => {};
  const handled: string[] = [];
  const inOrder = createInOrder(
    {
      async handle({ id }) {
        await new Promise<void>((resolve) => (finish = resolve));
        handled.push(id);
      },
      lastHandled: async () => ({ version: 0, epoch: 1 }),
      onGap: () => 'wait',
      onRewind() {},
      client: { readEntries: () => Promise.reject(new Error('nothing is asked')) },
    },
    { concurrency: 1, prefetch: 10, gapTimeoutMs: 1000 },
    () => {},
  );
  const data = {
    accountId: 'a',
    version: 1,
    epoch: 1,
    previousEpoch: 1,
    amount: 1,
    heldChange: 0,
    balance: 1,
    held: 0,
  };
  const event = { id: 'a:1:1', data } as BalanceEvent;
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

it('handles nothing that follows while something in hand does not', async () => {
  const eventOf = (version: number, epoch: number, previousEpoch: number) =>
    ({
      id: `a:${version}:${epoch}`,
      data: { accountId: 'a', version, epoch, previousEpoch, amount: 1, heldChange: 0, balance: version, held: 0 },
    }) as BalanceEvent;
  const called: string[] = [];
  let handled: Handled = { version: 10, epoch: 1 };
  const entries = [9, 8].map((version) => {
    const { id, data } = eventOf(version, version === 9 ? 2 : 1, 1);
    return { eventId: id, type: 'balance.credited' as const, ...data, asset: 'UNIT', createdAt: '', recordedAt: '' };
  });
  const inOrder = createInOrder(
    {
      handle({ id }) {
        called.push(id);
      },
      lastHandled: () => handled,
      onGap: () => 'wait',
      onRewind({ shared }) {
        called.push(`rewind to ${shared?.version}`);
        handled = shared as Handled;
      },
      client: {
        readEntries: async () => ({ accountId: 'a', version: 9, ledgerVersion: 9, entries, nextCursor: null }),
      },
    },
    { concurrency: 1, prefetch: 10, gapTimeoutMs: 1000 },
    () => {},
  );
  const events = [eventOf(11, 1, 1), eventOf(9, 2, 1)];
  inOrder.take({ events, redelivered: false, replayed: false, done: () => called.push('done') });
  await delay(50);
  expect(called).toEqual(['rewind to 8', 'a:9:2']);
  await inOrder.stop();
});
