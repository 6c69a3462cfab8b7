// The subscription of the client on a real RabbitMQ: whatever is shuffled, doubled, lost or cut,
// each account's events are handled in order, each at least once, and what is missing is reported.
// The ledger that it asks is a real one.
import { setTimeout as delay } from 'node:timers/promises';
import type { ConfirmChannel } from 'amqplib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createClient } from '../../src/client/client.ts';
import {
  type EntriesReader,
  type Gap,
  type Handled,
  type Problem,
  type SubscribeOptions,
  type Subscription,
  subscribe,
} from '../../src/client/events.ts';
import { type Change, eventId } from '../../src/shared/change.ts';
import { CHANGE_TYPES } from '../../src/shared/contract.ts';
import { encodeEvent, encodeEventBatch } from '../../src/shared/events.ts';
import { ALL_EVENTS, declareTopology } from '../../src/shared/topology.ts';
import { startProxy } from '../chaos/proxy.ts';
import {
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  insertAccounts,
  makeChange,
  onCleanUp,
  send,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { change, record, startSubscriber } from '../support/subscriber.ts';

let broker: Broker;
/** Its ledger holds what record() puts there. */
let database: Database;
let client: EntriesReader;
let channel: ConfirmChannel;
let queues = 0;
/** Name of the present test's queue. */
let queue: string;
/** Of the present test. */
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
  queue = `${broker.namespace}-subscriber-${queues}`;
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((subscription) => subscription.stop()));
  await channel.deleteQueue(queue); // all are bound to the same exchange
});
afterAll(cleanUp);

const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, index) => first + index);

const recordUpTo = (accountId: string, last: number) =>
  record(
    database,
    range(0, last).map((version) => change(accountId, version)),
  );

async function publishChanges(changes: readonly Change[], headers?: Record<string, unknown>) {
  for (const one of changes) {
    const options = { messageId: eventId(one), persistent: true, ...(headers ? { headers } : {}) };
    channel.publish(broker.topology.eventsExchange, one.type, encodeEvent(one), options);
  }
  await channel.waitForConfirms();
}

const publish = (accountId: string, versions: readonly number[], headers?: Record<string, unknown>) =>
  publishChanges(
    versions.map((version) => change(accountId, version)),
    headers,
  );

const ready = async (name = queue) => (await channel.checkQueue(name)).messageCount;

/** At the present test's queue. */
async function subscriber(options: Partial<SubscribeOptions> = {}, stored?: Map<string, Handled>) {
  const started = startSubscriber({ url: broker.url, namespace: broker.namespace, queue, client, ...options }, stored);
  running.push(started.subscription);
  await until('it consumes', () => started.subscription.isConsuming);
  return started;
}

/**
 * What is stored of an account in one epoch, as a subscriber might have it that stores no more than
 * it must.
 */
const upTo = (version: number, epoch = 1): Handled => ({ version, epoch });

function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, place: Math.random() }))
    .sort((one, other) => one.place - other.place)
    .map(({ item }) => item);
}

describe('order', () => {
  it('is that of the versions, whatever comes shuffled, doubled and in batches', async () => {
    const accounts = range(1, 12).map((number) => `account-${number}`);
    const busy = new Set<string>();
    let busyMax = 0;
    const areFour = Promise.withResolvers<void>();
    const { versionsOf, handled, problems } = await subscriber({
      concurrency: 4,
      async handle({ data }) {
        expect(busy).not.toContain(data.accountId);
        busy.add(data.accountId);
        busyMax = Math.max(busyMax, busy.size);
        if (busy.size === 4) areFour.resolve();
        // Until four have been at it at once; no longer, where fewer accounts have anything to do.
        await Promise.race([areFour.promise, delay(20)]);
        await new Promise((resolve) => setImmediate(resolve));
        busy.delete(data.accountId);
      },
    });
    const changes = accounts.flatMap((id) =>
      range(0, 30).flatMap((version) => [change(id, version), change(id, version)]),
    );
    for (let rest = shuffled(changes); rest.length > 0; ) {
      const part = rest.splice(0, 1 + Math.floor(Math.random() * 5));
      const body = part.length === 1 ? encodeEvent(part[0]!) : encodeEventBatch(part);
      channel.publish(broker.topology.eventsExchange, part[0]!.type, body);
    }
    await channel.waitForConfirms();
    await until('all are handled', () => handled.length >= accounts.length * 31);
    for (const account of accounts) expect(versionsOf(account), account).toEqual(range(0, 30));
    expect(problems).toEqual([]);
    expect(busyMax).toBe(4);
  });

  it('begins after the version that the subscriber has stored, and asks again when the look-up failed', async () => {
    let asked = 0;
    const { versionsOf, problems } = await subscriber({
      async lastHandled() {
        asked += 1;
        if (asked === 1) throw new Error('the database is down');
        return upTo(3);
      },
    });
    await publish('stored', [2, 5, 3, 4]);
    await until('all are handled', () => versionsOf('stored').length === 2);
    expect(versionsOf('stored')).toEqual([4, 5]);
    expect(asked).toBe(2);
    expect(problems).toMatchObject([
      { kind: 'last_handled_failed', accountId: 'stored', message: 'last handled failed: the database is down' },
    ]);
  });

  it.each([
    ['nothing is stored', () => undefined, [0, 1, 2]],
    ['no row of it is stored', () => null, [0, 1, 2]],
    ['it is stored that nothing was handled', () => ({ version: -1, epoch: 0 }), [0, 1, 2]],
    ['the opening was handled', () => upTo(0), [1, 2]],
    ['the subscriber stores nothing', undefined, [0, 1, 2]],
  ])('begins with what comes first where %s', async (_, lastHandled, versions) => {
    const { versionsOf, problems, gaps } = await subscriber({ lastHandled });
    await publish('new', [0, 2, 0, 1]);
    await until('all are handled', () => versionsOf('new').length === versions.length);
    await until('all is acknowledged', async () => (await ready()) === 0);
    expect(versionsOf('new')).toEqual(versions);
    expect([...problems, ...gaps]).toEqual([]);
  });

  it.each([
    { version: -2, epoch: 1 },
    { version: '3', epoch: 1 },
    { version: 3 },
    { version: 3, epoch: 1, earlier: [[1, '1']] },
    3,
  ])('asks again where %j is stored, which says nothing', async (wrong) => {
    let asked = 0;
    const { versionsOf, problems } = await subscriber({
      lastHandled() {
        asked += 1;
        return asked === 1 ? (wrong as Handled) : undefined;
      },
    });
    await publish('wrong', [0]);
    await until('it is handled', () => versionsOf('wrong').length === 1);
    const message = expect.stringContaining('with version and epoch as numbers, or undefined');
    expect(problems).toMatchObject([{ kind: 'last_handled_failed', accountId: 'wrong', message }]);
  });

  it('is that of the versions, whatever the types: none of them leaves a gap', async () => {
    const { handled, gaps } = await subscriber({ gapTimeoutMs: 100 });
    const changes = CHANGE_TYPES.map((type, version) => {
      const amount = type === 'balance.credited' ? 1 : type === 'balance.debited' ? -1 : 0;
      const balance = type === 'balance.credited' ? 1 : 0;
      return makeChange({ accountId: 'typed', version, type, amount, balance });
    });
    await publishChanges(changes.toReversed());
    await until('all are handled', () => handled.length === changes.length);
    expect(handled.map(({ event }) => event.type)).toEqual(CHANGE_TYPES);
    expect(handled[0]?.event.data.limits).toEqual({ overdraftLimit: 0, status: 'open' });
    expect(gaps).toEqual([]);
  });

  it('waits for a handler that rejects, without holding up other accounts', async () => {
    let healed = false;
    const { versionsOf, handled, problems } = await subscriber({
      handle({ data }) {
        if (data.accountId === 'failing' && data.version === 2 && !healed) throw new Error('no luck');
      },
    });
    await publish('failing', range(0, 3));
    await publish('other', range(0, 20));
    await until('it failed twice', () => problems.length >= 2);
    await until('the others are handled', () => versionsOf('other').length === 21);
    expect(versionsOf('failing')).toEqual([0, 1]);
    healed = true;
    await until('it is handled', () => versionsOf('failing').length === 4);
    expect(versionsOf('failing')).toEqual([0, 1, 2, 3]);
    expect(problems[1]).toMatchObject({ kind: 'handle_failed', accountId: 'failing', version: 2, attempt: 2 });
    const second = handled.find(({ event }) => event.id === eventId(change('failing', 2)));
    expect(second?.attempt).toBe(problems.length + 1);
  });

  it('holds with what the service publishes, in batches too', async () => {
    const itsDatabase = await createDatabase();
    const own = createBroker();
    const { url } = await startApiHere(itsDatabase, own, { EVENTS_PER_MESSAGE_MAX: '50' });
    await startWorkerHere(itsDatabase, own);
    const { versionsOf, handled } = await subscriber({ namespace: own.namespace, client: createClient({ url }) });
    await insertAccounts(itsDatabase, 'real');
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const update = { accountId: 'real', amount: 1 };
    const headers = (number: number) => ({ traceparent, 'idempotency-key': `update ${number}` });
    const isAccepted = async (number: number) =>
      (await send(url, 'POST', '/v1/balance-updates', update, headers(number))).status === 200; // else 503 on a busy machine
    await Promise.all(range(1, 300).map((number) => until('it is accepted', () => isAccepted(number))));
    await until('all are handled', () => handled.length >= 301);
    expect(versionsOf('real')).toEqual(range(0, 300));
    const [opening, ...updates] = handled.map(({ event }) => event);
    expect([opening?.type, opening?.traceparent]).toEqual(['account.opened', undefined]);
    for (const event of updates) expect(event.traceparent).toContain('4bf92f3577b34da6a3ce929d0e0e4736');
    await drained(itsDatabase);
  });
});

it('asks about as many accounts at a time as it handles, however many arrive at once', async () => {
  const accounts = range(1, 60).map((number) => `crowd-${number}`);
  const most = { lookUps: 0, gaps: 0 };
  const underWay = { lookUps: 0, gaps: 0 };
  const question = async <T>(kind: keyof typeof most, answer: T): Promise<T> => {
    underWay[kind] += 1;
    most[kind] = Math.max(most[kind], underWay[kind]);
    await delay(50);
    underWay[kind] -= 1;
    return answer;
  };
  for (const account of accounts) await recordUpTo(account, 2);
  const { handled } = await subscriber({
    concurrency: 4,
    gapTimeoutMs: 100,
    lastHandled: () => question('lookUps', upTo(0)),
    onGap: () => question('gaps', 'skip' as const),
  });
  await publishChanges(accounts.map((account) => change(account, 2)));
  await until('all are handled', () => handled.length === accounts.length);
  expect(handled.map(({ event }) => event.data.accountId).sort()).toEqual(accounts.sort());
  expect(most).toEqual({ lookUps: 4, gaps: 4 });
});

it('acknowledges duplicates of many accounts, one look-up at a time', async () => {
  const accounts = range(1, 20).map((number) => `stored-${number}`);
  await subscriber().then(({ subscription }) => subscription.stop()); // makes the queue
  for (const account of accounts) await publish(account, [1]);
  const stored = new Map(accounts.map((account) => [account, upTo(1)]));
  const { handled, subscription } = await subscriber({}, stored);
  await until('all are delivered', async () => (await ready()) === 0);
  await delay(500);
  await subscription.stop();
  expect({ handled: handled.length, left: await ready() }).toEqual({ handled: 0, left: 0 });
});

describe('a gap', () => {
  it('is reported when it stays, and again while the answer is to wait; a replay fills it', async () => {
    const { versionsOf, gaps, handled } = await subscriber({ gapTimeoutMs: 150 });
    await recordUpTo('gap', 6);
    await publish('gap', [0, 1, 4, 5]);
    await until('it is reported twice', () => gaps.length >= 2);
    expect(gaps[0]).toEqual({
      ...{ accountId: 'gap', firstMissing: 2, lastMissing: 3, held: 2, isFull: false },
      handled: { ...upTo(3), balance: 3, held: 0, earlier: [[-1, 0]] },
    });
    expect(versionsOf('gap')).toEqual([0, 1]);
    await publish('gap', range(0, 6), { 'x-replayed': true });
    await until('it is filled', () => versionsOf('gap').length === 7);
    expect(versionsOf('gap')).toEqual(range(0, 6));
    expect(handled.map(({ replayed }) => replayed)).toEqual([false, false, true, true, false, false, true]);
    await until('all is acknowledged', async () => (await ready()) === 0);
  });

  it('is left behind when the subscriber says so, and what comes late is a duplicate', async () => {
    const gaps: Gap[] = [];
    const { versionsOf } = await subscriber({
      gapTimeoutMs: 100,
      onGap(gap) {
        gaps.push(gap);
        return 'skip';
      },
    });
    await recordUpTo('skipped', 7);
    await publish('skipped', [0, 1, 3, 6]);
    await until('it continues', () => versionsOf('skipped').length === 4);
    await publish('skipped', [2, 4, 5, 7]);
    await until('it continues', () => versionsOf('skipped').length === 5);
    expect(versionsOf('skipped')).toEqual([0, 1, 3, 6, 7]);
    expect(gaps).toMatchObject([
      { firstMissing: 2, lastMissing: 2, held: 2 },
      { firstMissing: 4, lastMissing: 5, held: 1 },
    ]);
  });

  it('can be filled by the subscriber itself, while nothing else of the account is handled', async () => {
    const effects: string[] = [];
    let fill = () => {};
    const { versionsOf, handled } = await subscriber({
      gapTimeoutMs: 50,
      async onGap({ firstMissing, lastMissing }) {
        await new Promise<void>((resolve) => {
          fill = resolve;
        });
        for (const version of range(firstMissing, lastMissing)) effects.push(`ledger ${version}`);
        return 'skip' as const;
      },
      handle: ({ data }) => void effects.push(`event ${data.version}`),
    });
    await recordUpTo('filled', 4);
    await publish('filled', [3, 4]);
    await until('it is asked', () => fill.name !== 'fill');
    await publish('filled', [0, 1, 2]); // they come after all
    await publish('beside', [0]);
    await until('another account is handled', () => versionsOf('beside').length === 1);
    expect(versionsOf('filled')).toEqual([]);
    fill();
    await until('it continues', () => handled.length === 3);
    expect(effects).toEqual(['event 0', 'ledger 0', 'ledger 1', 'ledger 2', 'event 3', 'event 4']);
  });

  it('is read from the entries when the subscriber says so, as the events that are missing', async () => {
    let failures = 0;
    const { versionsOf, gaps, handled, problems } = await subscriber({
      gapTimeoutMs: 50,
      onGap(gap) {
        gaps.push(gap);
        return 'backfill';
      },
      handle({ data }) {
        if (data.version !== 1500 || failures === 2) return;
        failures += 1;
        throw new Error('no luck');
      },
    });
    await recordUpTo('read', 2400);
    await publish('read', [0, 1, 2400]);
    await until('all is handled', () => versionsOf('read').length > 2400);
    expect(gaps).toMatchObject([{ firstMissing: 2, lastMissing: 2399 }]);
    const sent = range(0, 2400).map((version) => JSON.parse(encodeEvent(change('read', version)).toString()));
    expect(handled.map(({ event }) => event)).toEqual(sent);
    expect(handled.map(({ replayed }) => replayed)).toEqual(sent.map((_, version) => version >= 2 && version < 2400));
    expect(problems.map(({ kind }) => kind)).toEqual(['handle_failed', 'handle_failed']);
    await publish('read', range(1990, 2400)); // they come after all
    await until('all is acknowledged', async () => (await ready()) === 0);
    await publish('after', [0]);
    await until('what comes next is handled', () => versionsOf('after').length === 1);
    expect(versionsOf('read')).toHaveLength(2401);
  });

  it('is read from the entries at once when nothing more fits in hand, which then goes on', async () => {
    const accounts = range(1, 12).map((number) => `stalled-${number}`);
    for (const account of accounts) await recordUpTo(account, 5);
    const { versionsOf, gaps, handled } = await subscriber({
      prefetch: 10,
      gapTimeoutMs: 5000,
      onGap(gap) {
        gaps.push(gap);
        return 'backfill';
      },
    });
    for (const version of [4, 5]) for (const account of accounts) await publish(account, [version]);
    await until('all is handled', () => handled.length >= 72);
    expect(gaps[0]).toMatchObject({ firstMissing: 0, lastMissing: 3, isFull: true });
    for (const account of accounts) expect(versionsOf(account)).toEqual(range(0, 5));
    await until('all is acknowledged', async () => (await ready()) === 0);
  });

  it('is reported at once when nothing more fits in hand, and memory stays bounded meanwhile', async () => {
    let answer: 'skip' | 'wait' = 'wait';
    const gaps: Gap[] = [];
    const { versionsOf, handled } = await subscriber({
      prefetch: 10,
      gapTimeoutMs: 1000,
      onGap(gap) {
        gaps.push(gap);
        return answer;
      },
    });
    await recordUpTo('full', 60);
    await publish('full', range(2, 60));
    await until('it is reported', () => gaps.length > 0);
    expect(gaps).toMatchObject([{ accountId: 'full', firstMissing: 0, lastMissing: 1, held: 10, isFull: true }]);
    expect(await ready()).toBe(49); // all others stay at RabbitMQ
    answer = 'skip';
    await until('it is asked again, and continues', () => handled.length === 59);
    expect(gaps).toHaveLength(2);
    expect(versionsOf('full')).toEqual(range(2, 60));
  });
});

it('calls onGap with isFull for an account too that answered wait before', async () => {
  const { gaps } = await subscriber({ prefetch: 4, gapTimeoutMs: 200 });
  await recordUpTo('patient', 5);
  await publish('patient', [2]);
  await until('it was answered wait', () => gaps.length > 0);
  expect(gaps[0]).toMatchObject({ accountId: 'patient', isFull: false });
  await publish('patient', [3, 4, 5]);
  await until('it is asked again', () => gaps.some(({ isFull }) => isFull));
});

describe('a lost connection', () => {
  it('costs nothing: running handlers end first, and the sequence continues', async () => {
    const target = new URL(broker.url);
    const proxy = await startProxy({ port: Number(target.port || 5672) });
    onCleanUp(() => proxy.close());
    const through = new URL(broker.url);
    through.host = `127.0.0.1:${proxy.port}`;
    let cut = 0;
    let under = 0;
    const { versionsOf, problems, handled } = await subscriber({
      url: through.href,
      async handle({ data }) {
        under += 1;
        expect(under).toBe(1);
        if ([5, 20].includes(data.version) && cut < 2) {
          cut += 1;
          for (const connection of proxy.connections()) connection.cut();
          const seen = problems.length;
          await until('it noticed', () => problems.length > seen);
        }
        under -= 1;
      },
    });
    await publish('cut', range(0, 40));
    await until('all are handled', () => versionsOf('cut').length >= 41);
    expect(versionsOf('cut')).toEqual(range(0, 40));
    expect(cut).toBe(2);
    expect(problems[0]).toMatchObject({ kind: 'disconnected', attempt: 1 });
    expect(handled.some(({ redelivered }) => redelivered)).toBe(true);
    await until('all is acknowledged', async () => (await ready()) === 0);
  });

  it('brings what another consumer handled meanwhile as a duplicate, not as a gap', async () => {
    const stored = new Map<string, Handled>();
    const first = await subscriber({ gapTimeoutMs: 50 }, stored);
    await publish('turns', [0, 1, 2]);
    await until('the first handles', () => first.handled.length === 3);
    const second = await subscriber({ gapTimeoutMs: 50 }, stored);
    await publish('turns', [3]);
    await until('the first continues alone', () => first.handled.length === 4);
    await first.subscription.stop();
    await publish('turns', [4, 5]);
    await until('the second takes over', () => second.handled.length === 2);
    expect(second.versionsOf('turns')).toEqual([4, 5]);
    expect([...first.gaps, ...second.gaps]).toEqual([]);
  });

  it('is opened again after the queue was deleted', async () => {
    const { versionsOf, problems } = await subscriber();
    await publish('deleted', [0, 1]);
    await until('it is handled', () => versionsOf('deleted').length === 2);
    await channel.deleteQueue(queue);
    await until('it noticed', () => problems.length > 0);
    const bound = async () => {
      const probe = await (await broker.connect()).createChannel();
      probe.on('error', () => {});
      return probe.checkQueue(queue).then(
        ({ consumerCount }) => consumerCount === 1,
        () => false,
      );
    };
    await until('the queue is there again', bound);
    await publish('deleted', [2]);
    await until('it continues', () => versionsOf('deleted').length === 3);
  });
});

describe('a stop', () => {
  it('waits for the running handlers, acknowledges them, and leaves the rest in the queue', async () => {
    let finish = () => {};
    const stored = new Map<string, Handled>();
    const first = await subscriber(
      {
        async handle({ data }) {
          if (data.version < 3) return;
          await new Promise<void>((resolve) => {
            finish = resolve;
          });
        },
      },
      stored,
    );
    await publish('stopped', range(0, 10));
    await until('the third is running', () => finish.name !== 'finish');
    let stopped = false;
    const stop = first.subscription.stop().then(() => {
      stopped = true;
    });
    await publish('stopped', [11]);
    expect(stopped).toBe(false);
    finish();
    await stop;
    await first.subscription.stop();
    expect(first.versionsOf('stopped')).toEqual([0, 1, 2, 3]);
    await until('the rest is back', async () => (await ready()) === 8);
    const second = await subscriber({}, stored);
    await until('another continues', () => second.handled.length === 8);
    expect(second.versionsOf('stopped')).toEqual(range(4, 11));
  });

  it('is what the signal asks for, also where there is no RabbitMQ', async () => {
    const controller = new AbortController();
    const problems: Problem[] = [];
    const subscription = subscribe({
      url: 'amqp://127.0.0.1:1',
      client,
      handle() {},
      onGap: () => 'wait',
      onRewind() {},
      onProblem: (problem) => problems.push(problem),
      signal: controller.signal,
    });
    await until('it tried three times', () => problems.length >= 3);
    expect(problems.map(({ kind, attempt }) => ({ kind, attempt }))).toEqual(
      range(1, 3).map((attempt) => ({ kind: 'disconnected', attempt })),
    );
    controller.abort();
    await subscription.stop();
    expect(subscription.isConsuming).toBe(false);
  });
});

it('rejects what is no event, and says so', async () => {
  const { problems, versionsOf } = await subscriber();
  const one = JSON.parse(encodeEvent(change('a', 1)).toString());
  const foreign = [
    'no json',
    '[]',
    '{}',
    JSON.stringify({ ...one, id: 'a:2:1' }),
    JSON.stringify({ ...one, id: 'a:1:2' }),
    JSON.stringify({ ...one, id: 'a:1' }),
    JSON.stringify({ ...one, type: undefined }),
    JSON.stringify({ ...one, data: { ...one.data, version: -1 } }),
    JSON.stringify({ ...one, data: { ...one.data, epoch: undefined } }),
    `[${'{},'.repeat(5_000_000)}{}]`, // parsed, it would take 280 MB
    JSON.stringify(Array.from({ length: 101 }, () => one)),
    JSON.stringify({ ...one, data: { ...one.data, previousEpoch: undefined } }),
    JSON.stringify({ ...one, data: { ...one.data, previousEpoch: 2 } }),
    JSON.stringify({ ...one, data: { ...one.data, held: undefined } }),
  ];
  for (const body of foreign) channel.publish(broker.topology.eventsExchange, 'balance.credited', Buffer.from(body));
  await publish('a', [0]);
  await until('the event is handled', () => versionsOf('a').length === 1);
  expect(problems.map(({ kind }) => kind)).toEqual(foreign.map(() => 'malformed_message'));
  await until('nothing is left', async () => (await ready()) === 0);
});

it('needs no queue of its own name: one that lives as long as the connection', async () => {
  const { handled } = await subscriber({ queue: undefined, lastHandled: undefined });
  await publish('temporary', [41, 42]);
  await until('they are handled', () => handled.length === 2);
});

it.each([
  [{ url: 'http://localhost' }, /url must be an AMQP URL/],
  [{ concurrency: 0 }, /concurrency must be a whole number from 1 to 1000/],
  [{ prefetch: 70_000 }, /prefetch must be/],
  [{ gapTimeoutMs: 0.5 }, /gapTimeoutMs must be/],
  [{ queue: 'balance.mine' }, /queue must not begin with "balance\."/],
  [{ declareQueue: false }, /needs the name of a queue/],
  [{ client: {} as EntriesReader }, /client must be what createClient\(\) returns/],
])('refuses the options %j with a sentence', (options, message) => {
  const callbacks = { handle() {}, onGap: () => 'wait' as const, onRewind() {} };
  const required = { url: 'amqp://localhost', client: createClient({ url: 'http://localhost' }), ...callbacks };
  expect(() => subscribe({ ...required, ...options })).toThrow(message);
});
