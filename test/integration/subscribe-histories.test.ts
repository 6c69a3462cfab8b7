// A subscription where the database lost commits, where someone forged events, where another
// process continued, and where an account fails for long: nothing that is not in the account's
// history is believed, and nothing stands still without a word.
import { setTimeout as delay } from 'node:timers/promises';
import type { ConfirmChannel } from 'amqplib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createClient } from '../../src/client/client.ts';
import type { EntriesReader, Handled, SubscribeOptions, Subscription } from '../../src/client/events.ts';
import { type Change, eventId } from '../../src/shared/change.ts';
import { encodeEvent } from '../../src/shared/events.ts';
import { ALL_EVENTS, declareTopology } from '../../src/shared/topology.ts';
import {
  type Broker,
  cleanUp,
  copyDatabase,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  drained,
  makeChange,
  send,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { change, record, startSubscriber } from '../support/subscriber.ts';

let broker: Broker;
let database: Database;
let client: EntriesReader;
let channel: ConfirmChannel;
let queues = 0;
let queue: string;
const running: Subscription[] = [];

beforeAll(async () => {
  broker = createBroker();
  database = await createDatabase();
  client = createClient({ url: (await startApiHere(database, broker, { RELAY: 'off' })).url });
  channel = await (await broker.connect()).createConfirmChannel();
  await declareTopology(channel, broker.topology);
  await channel.unbindQueue(broker.topology.ledgerQueue, broker.topology.eventsExchange, ALL_EVENTS);
});
beforeEach(() => {
  queues += 1;
  queue = `${broker.namespace}-histories-${queues}`;
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((subscription) => subscription.stop()));
  await channel.deleteQueue(queue);
});
afterAll(cleanUp);

const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, index) => first + index);

async function subscriber(options: Partial<SubscribeOptions> = {}, stored?: Map<string, Handled>) {
  const started = startSubscriber({ url: broker.url, namespace: broker.namespace, queue, client, ...options }, stored);
  running.push(started.subscription);
  await until('it consumes', () => started.subscription.isConsuming);
  return started;
}

async function publish(changes: readonly Change[]) {
  for (const one of changes) {
    channel.publish(broker.topology.eventsExchange, one.type, encodeEvent(one), { messageId: eventId(one) });
  }
  await channel.waitForConfirms();
}

const nothingLeft = async () => (await channel.checkQueue(queue)).messageCount === 0;

/**
 * Versions 0 to 3 of epoch 1, then 4 to `last` of epoch 2, as if versions above 3 had been lost.
 */
function historyAfterCut(accountId: string, last: number): Change[] {
  return range(0, last).map((version) => {
    const one = change(accountId, version);
    return version < 4 ? one : { ...one, epoch: 2, previousEpoch: version === 4 ? 1 : 2 };
  });
}

describe('a history that was cut', () => {
  it('is reported before anything is handled that took its place, with the last version that both share', async () => {
    const order: string[] = [];
    const { rewinds, versionsOf, gaps, problems, stored, handled } = await subscriber({
      handle: ({ id }) => void order.push(id),
    });
    const lost = range(0, 6).map((version) => change('cut', version));
    await record(database, historyAfterCut('cut', 6));
    await publish(lost);
    await until('they are handled', () => versionsOf('cut').length === 7);
    await publish(historyAfterCut('cut', 6).slice(4).toReversed());
    await until('it continues', () => handled.length === 10);
    const shared = { version: 3, epoch: 1, balance: 3, held: 0, earlier: [[-1, 0]] };
    expect(rewinds).toMatchObject([
      { accountId: 'cut', last: { version: 6, epoch: 1 }, shared, event: { id: 'cut:6:2' } },
    ]);
    expect(order.slice(7)).toEqual(['cut:4:2', 'cut:5:2', 'cut:6:2']);
    expect(stored.get('cut')).toMatchObject({
      version: 6,
      epoch: 2,
      earlier: [
        [3, 1],
        [-1, 0],
      ],
    });
    // What is left of the lost history is dropped, and counted.
    await publish([lost[5] as Change, change('cut', 8)]);
    await until('they are reported', () => problems.length === 2, 20_000);
    expect(problems).toMatchObject([
      { kind: 'superseded', accountId: 'cut', version: 5 },
      { kind: 'superseded', accountId: 'cut', version: 8 },
    ]);
    expect(gaps).toEqual([]);
    await until('all is acknowledged', nothingLeft);
  });

  it('is noticed after a gap too, and by a subscriber that stores version and epoch alone', async () => {
    await record(database, historyAfterCut('far', 9));
    const { rewinds, gaps, versionsOf } = await subscriber(
      { gapTimeoutMs: 100, onGap: () => 'skip' },
      new Map([['far', { version: 5, epoch: 1 }]]),
    );
    await publish(historyAfterCut('far', 9).slice(8));
    await until('it continues', () => versionsOf('far').length === 2);
    expect(rewinds).toMatchObject([{ accountId: 'far', shared: { version: 3, epoch: 1, balance: 3 } }]);
    expect(versionsOf('far')).toEqual([8, 9]);
    expect(gaps).toEqual([]);
  });

  it('is reported again while the subscriber fails, and until it has stored where to go on', async () => {
    await record(database, historyAfterCut('again', 5));
    const stored = new Map([['again', { version: 5, epoch: 1 }]]);
    let calls = 0;
    const { problems, versionsOf } = await subscriber(
      {
        onRewind({ accountId, shared }) {
          calls += 1;
          if (calls === 1) throw new Error('no luck');
          if (calls === 3) stored.set(accountId, shared as Handled);
        },
      },
      stored,
    );
    await publish([...historyAfterCut('again', 5).slice(4), change('beside', 0)]);
    await until('it continues', () => versionsOf('again').length === 2);
    expect(versionsOf('beside')).toEqual([0]);
    expect(calls).toBe(3);
    expect(problems).toMatchObject([
      { kind: 'on_rewind_failed', accountId: 'again', message: 'on rewind failed: no luck', attempt: 1 },
      { kind: 'on_rewind_failed', message: expect.stringContaining('lastHandled still returns') },
    ]);
  });

  it('is a fork where the epochs agree and the balances do not: nobody can say since when', async () => {
    const forked = range(0, 6).map((version) =>
      makeChange({ accountId: 'fork', version, amount: version === 0 ? 0 : 5, balance: version * 5 }),
    );
    await record(database, forked);
    const { rewinds, versionsOf } = await subscriber(
      { onRewind: (rewind) => void rewinds.push(rewind) },
      new Map([['fork', { version: 5, epoch: 1, balance: 7, held: 0 }]]),
    );
    await publish(forked.slice(6));
    await until('it is reported', () => rewinds.length > 0);
    expect(rewinds[0]).toMatchObject({ accountId: 'fork', last: { version: 5 }, shared: undefined });
    expect(versionsOf('fork')).toEqual([]);
  });

  it('is not reported after a harmless restart, nor is one that the entries do not have', async () => {
    const restarted = range(0, 6).map((version) => {
      const epoch = version < 3 ? 1 : version < 5 ? 2 : 9;
      return {
        ...change('calm', version),
        epoch,
        ...(version > 0 ? { previousEpoch: version <= 3 ? 1 : version <= 5 ? 2 : 9 } : {}),
      };
    });
    await record(database, restarted);
    const { rewinds, problems, versionsOf } = await subscriber();
    await publish(restarted.slice(0, 5));
    await publish([
      { ...change('calm', 4), epoch: 3, previousEpoch: 2 },
      { ...change('calm', 5), epoch: 3, previousEpoch: 3 },
    ]);
    await publish(restarted.slice(5));
    await until('all are handled', () => versionsOf('calm').length === 7);
    expect(rewinds).toEqual([]);
    expect(problems.map(({ kind }) => kind)).toEqual(['superseded', 'superseded']);
  });
});

describe('a forged event', () => {
  it('ahead of the history is dropped, and the real ones are handled, though gaps are skipped', async () => {
    await record(
      database,
      range(0, 5).map((version) => change('forged', version)),
    );
    const { versionsOf, problems, gaps } = await subscriber({ gapTimeoutMs: 100, onGap: () => 'skip' });
    await publish([
      ...range(0, 2).map((version) => change('forged', version)),
      change('forged', 1_000_000),
      change('nobody', 7),
    ]);
    await until('they are dropped', () => problems.length === 2);
    await publish(range(3, 5).map((version) => change('forged', version)));
    await until('the real ones are handled', () => versionsOf('forged').length === 6);
    expect(versionsOf('forged')).toEqual(range(0, 5));
    expect(problems.map(({ kind, accountId, version }) => [kind, accountId, version]).sort()).toEqual([
      ['superseded', 'forged', 1_000_000],
      ['superseded', 'nobody', 7],
    ]);
    expect([versionsOf('nobody'), gaps]).toEqual([[], []]);
  });

  it('in the place of the next one is dropped, where its amounts do not follow', async () => {
    await record(
      database,
      range(0, 3).map((version) => change('next', version)),
    );
    const { versionsOf, problems, handled } = await subscriber();
    await publish([change('next', 0), change('next', 1), { ...change('next', 2), amount: 500, balance: 9_000 }]);
    await until('it is dropped', () => problems.length === 1);
    await publish([change('next', 2), change('next', 3)]);
    await until('the real ones are handled', () => versionsOf('next').length === 4);
    expect(handled.map(({ event }) => event.data.balance)).toEqual([0, 2, 4, 3]);
  });
});

describe('what another process has handled meanwhile', () => {
  it('is known after a pause, in which that one may have been the active consumer', async () => {
    await record(
      database,
      range(0, 21).map((version) => change('pause', version)),
    );
    const stored = new Map<string, Handled>();
    const { versionsOf, gaps } = await subscriber({}, stored);
    await publish(range(0, 2).map((version) => change('pause', version)));
    await until('it handles', () => versionsOf('pause').length === 3);
    stored.set('pause', { version: 20, epoch: 1 });
    await delay(1100); // the pause itself
    await publish([change('pause', 3), change('pause', 21)]); // one of them once more
    await until('it continues', () => versionsOf('pause').includes(21));
    expect(versionsOf('pause')).toEqual([0, 1, 2, 21]);
    expect(gaps).toEqual([]);
  });

  it('is no gap, however short the pause', async () => {
    await record(
      database,
      range(0, 21).map((version) => change('short', version)),
    );
    const stored = new Map<string, Handled>();
    const { versionsOf, gaps } = await subscriber({ gapTimeoutMs: 200 }, stored);
    await publish(range(0, 2).map((version) => change('short', version)));
    await until('it handles', () => versionsOf('short').length === 3);
    stored.set('short', { version: 20, epoch: 1 });
    await publish([change('short', 21)]);
    await until('it continues', () => versionsOf('short').length === 4);
    expect(gaps).toEqual([]);
  });
});

it('says when the events of failing accounts are all that fits in hand, and lets the subscriber set them aside', async () => {
  let setsAside = false;
  const aside: number[] = [];
  const { versionsOf, problems } = await subscriber({
    prefetch: 10,
    handle({ data: { accountId, version } }, { isFull }) {
      if (accountId !== 'sick') return;
      if (!setsAside || !isFull) throw new Error('no luck');
      aside.push(version);
    },
  });
  await publish([
    ...range(0, 11).map((version) => change('sick', version)),
    ...range(0, 20).map((version) => change('well', version)),
  ]);
  await until('it says so', () => problems.some(({ kind }) => kind === 'stalled'));
  expect(problems.find(({ kind }) => kind === 'stalled')).toMatchObject({
    accountId: 'sick',
    message:
      'all 10 messages that fit in hand wait for sick (10 events): nothing else is handled until one of them continues',
  });
  await delay(300);
  expect(problems.filter(({ kind }) => kind === 'stalled')).toHaveLength(1);
  expect(versionsOf('well')).toEqual([]);
  setsAside = true;
  await until('the others are handled', () => versionsOf('well').length === 21);
  expect(aside).toEqual(range(0, aside.length - 1));
});

describe('a database that was restored', () => {
  it('ends in a subscriber that equals its ledger, and a move that loses nothing reports nothing', {
    timeout: 240_000,
  }, async () => {
    const own = createBroker();
    const old = await createDatabase();
    let api = await startApiHere(old, own);
    let worker = await startWorkerHere(old, own);
    const present: EntriesReader = { readEntries: (...asked) => createClient({ url: api.url }).readEntries(...asked) };
    const effects = new Map<string, string[]>();
    const { rewinds, problems, gaps, handled } = await subscriber({
      namespace: own.namespace,
      client: present,
      handle({ id, data }) {
        effects.set(data.accountId, [...(effects.get(data.accountId) ?? []), id]);
      },
    });
    const stop = async () => {
      await api.stop();
      await worker.stop();
    };
    const start = async (on: Database) => {
      api = await startApiHere(on, own);
      worker = await startWorkerHere(on, own);
    };
    const update = async (accountId: string, times: number) => {
      for (let count = 0; count < times; count += 1) {
        const { status } = await send(api.url, 'POST', '/v1/balance-updates', { accountId, amount: 1 + count });
        expect(status).toBe(200);
      }
    };
    for (const account of ['busy', 'quiet']) await createAccount(api.url, account);
    await update('busy', 8);
    await update('quiet', 3);
    await drained(old);
    await stop();
    const backup = await copyDatabase(old);
    await start(old);
    await createAccount(api.url, 'lost');
    await update('busy', 4);
    await drained(old);
    await until('they are handled', () => handled.length === 18);
    await stop();

    await start(backup);
    await update('busy', 5);
    await update('quiet', 2);
    await createAccount(api.url, 'lost');
    await update('lost', 1);
    await drained(backup);
    await until('it is reported', () => rewinds.length === 2);
    expect(rewinds.map(({ accountId, shared }) => [accountId, shared?.version]).sort()).toEqual([
      ['busy', 8],
      ['lost', -1],
    ]);
    await until('they are handled', () => handled.length === 18 + 5 + 2 + 2);
    await stop();

    const moved = await copyDatabase(backup);
    await start(moved);
    for (const account of ['busy', 'quiet', 'lost']) await update(account, 2);
    await drained(moved);
    await until('they are handled', () => handled.length === 27 + 6);
    expect(rewinds).toHaveLength(2);
    for (const { accountId, shared } of rewinds) {
      const kept = effects.get(accountId)?.slice(0, (shared?.version ?? 0) + 1) ?? [];
      const after =
        effects
          .get(accountId)
          ?.slice((rewinds.find((one) => one.accountId === accountId)?.last.version as number) + 1) ?? [];
      effects.set(accountId, [...kept, ...after]);
    }
    const { rows } = await moved.pool.query(
      `SELECT account_id AS id, array_agg(event_id(account_id, version, epoch) ORDER BY version) AS ids FROM ledger GROUP BY 1 ORDER BY 1`,
    );
    expect([...effects].sort()).toEqual(rows.map(({ id, ids }) => [id, ids]));
    expect(gaps).toEqual([]);
    expect(problems.filter(({ kind }) => kind !== 'entries_failed')).toEqual([]); // asked before the ledger had it
  });
});

it('takes any number of epochs', async () => {
  const many = range(0, 60).map((version) => ({
    ...makeChange({ accountId: 'many', version }),
    epoch: version + 1,
    previousEpoch: version === 0 ? null : version,
  }));
  const { versionsOf, stored, rewinds } = await subscriber();
  await publish(many);
  await until('all are handled', () => versionsOf('many').length === 61);
  expect(stored.get('many')?.earlier).toHaveLength(8);
  expect(rewinds).toEqual([]);
});
