// Gaps of many accounts at once, and what else happens while they are filled from the entries.
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, expect, it } from 'vitest';
import type { GapAnswer, Handled, Problem, SubscribeOptions } from '../../src/client/events.ts';
import { createInOrder, type InOrder } from '../../src/client/in-order.ts';
import { until } from '../support/harness.ts';
import { creditOf, MemoryLedger } from '../support/memory-ledger.ts';

const running: InOrder[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((inOrder) => inOrder.stop()));
});

type Options = Partial<Pick<SubscribeOptions, 'handle' | 'onGap' | 'onRewind'>> & {
  prefetch?: number;
  gapTimeoutMs?: number;
  quietMs?: number;
  /** Of each account, to begin with. */
  stored?: Record<string, Handled>;
};

/** One at a time. A gap is backfilled unless `onGap` says otherwise. */
function consume(client: MemoryLedger, { stored: first = {}, handle, ...options }: Options = {}) {
  const stored = new Map(Object.entries(first));
  const problems: Problem[] = [];
  const handled: string[] = [];
  const acknowledged: string[] = [];
  const inOrder = createInOrder(
    {
      client,
      lastHandled: (id) => stored.get(id),
      onGap: () => 'backfill',
      onRewind: ({ accountId, shared }) => void stored.set(accountId, shared as Handled),
      ...options,
      async handle(event, delivery) {
        await handle?.(event, delivery);
        handled.push(event.id);
        stored.set(event.data.accountId, delivery.handled);
      },
    },
    { concurrency: 1, prefetch: 1000, gapTimeoutMs: 20, ...options },
    (problem) => problems.push(problem),
  );
  running.push(inOrder);
  const take = (id: string, ...versions: number[]) => {
    const events = versions.map((version) => creditOf(id, version));
    inOrder.take({ events, redelivered: false, replayed: false, done: () => acknowledged.push(id) });
  };
  const countOf = (id: string) => handled.filter((one) => one.startsWith(`${id}:`)).length;
  return { inOrder, take, countOf, handled, acknowledged, problems, stored };
}

const upTo = (version: number): Handled => ({ version, epoch: 1 });

it.each(['backfill', 'skip'] as const)('3,000 accounts with gaps fill the hand, and go on: %s', async (answer) => {
  const accounts = Array.from({ length: 3000 }, (_, number) => `a${number}`);
  const ledger = new MemoryLedger(() => 3);
  const { take, handled, acknowledged } = consume(ledger, {
    ...{ prefetch: accounts.length, gapTimeoutMs: 5000, onGap: () => answer },
  });
  for (const id of accounts) take(id, 3);
  await until('all are handled', () => acknowledged.length === accounts.length);
  expect(handled).toHaveLength(accounts.length * (answer === 'skip' ? 1 : 4));
});

it.each<GapAnswer>(['backfill', 'skip'])('stop() waits for a handler that a full hand began: %s', async (answer) => {
  let under = 0;
  const { inOrder, take } = consume(new MemoryLedger(() => 6), {
    ...{ prefetch: 2, gapTimeoutMs: 60_000, stored: { a: upTo(1) }, onGap: () => answer },
    async handle() {
      under += 1;
      await delay(200);
      under -= 1;
    },
  });
  take('a', 5);
  await delay(50);
  take('a', 6);
  await until('a handler runs', () => under > 0);
  await inOrder.stop();
  expect(under).toBe(0);
});

it('reads nothing more for what was in hand when the connection was lost', async () => {
  const accounts = Array.from({ length: 50 }, (_, number) => `a${number}`);
  const asked = new Set<string>();
  const blocked = Promise.withResolvers<void>();
  const ledger = new MemoryLedger(() => 5);
  const { inOrder, take } = consume(ledger, {
    async handle({ data }) {
      if (data.accountId === 'a0') await blocked.promise;
    },
    onGap({ accountId }) {
      asked.add(accountId);
      return 'backfill';
    },
  });
  for (const id of accounts) take(id, 5);
  await until('all are asked', () => asked.size === accounts.length);
  await delay(50);
  const before = ledger.asked.length;
  inOrder.forget();
  blocked.resolve();
  await delay(200);
  expect(ledger.asked.slice(before)).toEqual([]);
});

it('an account whose missing events arrive does not wait until another is backfilled', async () => {
  const ledger = new MemoryLedger((id) => (id === 'slow' ? 1001 : 5));
  const asked: string[] = [];
  const { take, countOf } = consume(ledger, {
    stored: { slow: upTo(1), quick: upTo(1) },
    handle: () => delay(3),
    onGap({ accountId }) {
      asked.push(accountId);
      return 'backfill';
    },
  });
  take('slow', 1001);
  await until('it is read', () => countOf('slow') > 0);
  take('quick', 5);
  await until('both are asked', () => asked.length === 2);
  await delay(20);
  take('quick', 2, 3, 4);
  await until('it is handled', () => countOf('quick') === 4);
  expect(ledger.pagesOf('quick')).toEqual([]);
  expect(countOf('slow')).toBeLessThan(900);
});

it('an account whose entries cannot be read holds up neither a backfill nor what needs none', async () => {
  const ledger = new MemoryLedger(
    (id) => (id === 'long' ? 1501 : 5),
    async (id) => {
      if (!id.startsWith('sick')) return;
      await delay(100);
      throw new Error('no luck');
    },
  );
  const { take, countOf, problems } = consume(ledger, { stored: { long: upTo(1) } });
  for (let number = 0; number < 20; number += 1) take(`sick${number}`, 5);
  await until('they fail', () => problems.length >= 2);
  const before = problems.length;
  take('healthy', 0);
  await until('it is handled', () => countOf('healthy') === 1);
  expect(problems.length - before).toBeLessThan(5);
  take('long', 1501);
  await until('it is backfilled', () => countOf('long') === 1500);
});

it('an onRewind that takes long does not hold up the backfill of others', async () => {
  let isCut = false;
  const ledger = new MemoryLedger(
    (id) => (id === 'cut' ? 25 : 5),
    () => {},
    (id, version) => {
      const isNew = id === 'cut' && isCut && version >= 9;
      return creditOf(id, version, isNew ? 2 : 1, isNew && version > 9 ? 2 : 1);
    },
  );
  const rewinding = Promise.withResolvers<void>();
  let isRewinding = false;
  const { take, countOf } = consume(ledger, {
    stored: { cut: upTo(10), other: upTo(1) },
    onGap({ accountId }) {
      isCut ||= accountId === 'cut'; // a failover, once it was looked into
      return 'backfill';
    },
    async onRewind() {
      isRewinding = true;
      await rewinding.promise;
      throw new Error('a person has to look at it');
    },
  });
  take('cut', 20);
  take('other', 5); // both are asked before
  await until('it is to be rewound', () => isRewinding);
  await until('the other is handled', () => countOf('other') === 4);
  rewinding.resolve();
});

it('reads little again where other events, or failures, interrupt it', async () => {
  const trickled = new MemoryLedger((id) => (id === 'a' ? 301 : 5000));
  const { take, countOf } = consume(trickled, { quietMs: 10, stored: { a: upTo(1) }, handle: () => delay(2) });
  take('a', 301);
  for (let version = 0; countOf('a') < 300; version += 1) {
    take('b', version);
    await delay(20); // what comes next is the first after a pause
  }
  expect(trickled.pagesOf('a').length).toBeLessThan(5);

  const failing = new MemoryLedger(() => 2001);
  const failed = new Set<number>();
  const other = consume(failing, {
    stored: { a: upTo(1) },
    handle({ data: { version } }) {
      if (version % 100 !== 0 || failed.has(version)) return;
      failed.add(version);
      throw new Error('no luck');
    },
  });
  other.take('a', 2001);
  await until('it is backfilled', () => other.countOf('a') === 2000);
  const entries = failing.pagesOf('a').reduce((sum, limit) => sum + limit, 0);
  expect(entries).toBeLessThan(3 * 2000 + 1000); // and the walk that looked into the gap
});
