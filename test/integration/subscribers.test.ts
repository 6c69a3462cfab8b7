// highload-balance subscribers: what it says of queues, and that a queue which was put aside has
// everything when it is resumed. Here the relay's part is played by the test;
// resumed-subscriber.test.ts has a queue that it really puts aside.
import type { Channel } from 'amqplib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { noteMissedRange, noteQueuePutAside } from '../../src/api/relay/missed.ts';
import { createClient } from '../../src/client/client.ts';
import { type Handled, subscribe as subscribeClient } from '../../src/client/events.ts';
import { CHANGE_TYPES } from '../../src/shared/contract.ts';
import { isRouted } from '../../src/shared/topic.ts';
import { declareTopology } from '../../src/shared/topology.ts';
import { startCommand } from '../support/commands.ts';
import {
  addressesOf,
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  eventIds,
  insertAccounts,
  ONLY_PROGRESS,
  onCleanUp,
  send,
  startApiHere,
  startWorkerHere,
  subscribe,
  until,
} from '../support/harness.ts';

let database: Database;
let broker: Broker;
let channel: Channel;
let exchange: string;
/** Of a subscriber. */
let queue: string;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
  exchange = broker.topology.eventsExchange;
  channel = await (await broker.connect()).createChannel();
  await declareTopology(channel, broker.topology);
  queue = `${broker.namespace}-billing`;
  onCleanUp(async () => void (await channel.deleteQueue(queue)));
});
afterEach(cleanUp);

const start = (...args: string[]) => startCommand(args, addressesOf(database, broker));
const run = (...args: string[]) => start('subscribers', ...args).whenEnded;
const listed = async () => JSON.parse((await run('--json')).out);

/** As the relay does it. */
async function putAside(...routingKeys: string[]): Promise<void> {
  const { rows } = await database.pool.query('SELECT coalesce(max(position), 0) + 1 AS position FROM outbox');
  await noteQueuePutAside(database.pool, { name: queue, routingKeys, bindings: [] }, rows[0].position);
  for (const key of routingKeys) await channel.unbindQueue(queue, exchange, key);
}

/** The ids of the events in a queue, in order. */
async function take(name: string): Promise<string[]> {
  const ids: string[] = [];
  for (;;) {
    const message = await channel.get(name, { noAck: true });
    if (!message) return ids;
    ids.push(message.properties.messageId);
  }
}

it('takes the keys of bindings as RabbitMQ does', async () => {
  const bindingKeys = [
    '#',
    '*.*',
    '*',
    'balance.*',
    'balance.#',
    '#.opened',
    '*.opened',
    'hold.placed',
    'balance',
    '#.#',
  ];
  bindingKeys.push('*.#', '#.*', 'account.#.opened', '#.hold.#', 'hold.*.*', '');
  for (const key of bindingKeys) {
    const { queue: name } = await channel.assertQueue('', { exclusive: true });
    await channel.bindQueue(name, exchange, key);
    for (const type of CHANGE_TYPES) channel.publish(exchange, type, Buffer.alloc(0), { messageId: type });
    const expected = CHANGE_TYPES.filter((type) => isRouted(key, type));
    await until('they came', async () => (await channel.checkQueue(name)).messageCount === expected.length, 5000);
    expect([key, await take(name)]).toEqual([key, expected]);
    await channel.deleteQueue(name);
  }
});

it('says what is known without the management plugin, and what is missing', async () => {
  await insertAccounts(database, 'a');
  await channel.assertQueue(queue, { durable: true });
  expect(await listed()).toEqual({ exchange, isComplete: false, queues: [], passedOver: [] });
  await putAside('balance.*', 'hold.placed');
  await applyDirectly(database.pool, 'a', 1, 5);
  await noteMissedRange(database.pool, 2, 4);
  const { queues, passedOver } = await listed();
  expect(queues).toEqual([
    {
      ...{ name: queue, exists: true, messages: 0, routingKeys: null },
      putAside: expect.objectContaining({ fromPosition: 2, routingKeys: ['balance.*', 'hold.placed'] }),
      command: `highload-balance subscribers resume ${queue}`,
    },
  ]);
  expect(passedOver).toEqual([
    expect.objectContaining({ firstPosition: 3, lastPosition: 4, command: expect.stringContaining('--missed 2') }),
  ]);
  const { out } = await run();
  for (const said of ['put aside at', 'from position 2 on', 'AMQP_MANAGEMENT_URL', 'positions 3 to 4', '--missed 2']) {
    expect(out).toContain(said);
  }
  await channel.deleteQueue(queue);
  expect((await listed()).queues[0]).toMatchObject({ exists: false, command: expect.stringContaining('forget') });
  expect(await run('resume', queue)).toMatchObject({
    code: 1,
    err: expect.stringContaining('does not exist any more'),
  });
  expect(await run('forget', queue)).toMatchObject({ code: 0, out: expect.stringContaining('was removed') });
  expect((await listed()).queues).toEqual([]);
  expect(await run('forget', queue)).toMatchObject({ code: 1, err: expect.stringContaining('There is no note') });
  expect(await run('resume', queue)).toMatchObject({ code: 1, err: expect.stringContaining('was not put aside') });
});

it('delivers a range that all missed, and counts it as delivered', async () => {
  await insertAccounts(database, 'a');
  const received = await subscribe(broker);
  await applyDirectly(database.pool, 'a', 1, 10);
  await noteMissedRange(database.pool, 3, 5);
  await noteMissedRange(database.pool, 5, 8); // what follows is the same range
  const { passedOver } = await listed();
  expect(passedOver).toMatchObject([{ firstPosition: 4, lastPosition: 8 }]);
  const [, ...command] = passedOver[0].command.split(' ');
  const slow = start(...command, '--rate', '2');
  await until('it has begun', () => received.some(({ headers }) => headers?.['x-replayed']));
  await noteMissedRange(database.pool, 8, 10);
  expect(await slow.whenEnded).toMatchObject({
    code: 1,
    err: expect.stringContaining('More was passed over meanwhile'),
  });
  expect((await listed()).passedOver).toMatchObject([{ firstPosition: 4, lastPosition: 10 }]);
  const replayed = await start(...command).whenEnded;
  expect(replayed).toMatchObject({ code: 0, out: expect.stringContaining('to all subscribers') });
  const id = await eventIds(database);
  const missed = [4, 5, 6, 7, 8, 9, 10].map((position) => id('a', position - 1));
  await until('they came', () => missed.every((each) => received.some(({ messageId }) => messageId === each)));
  expect((await listed()).passedOver).toEqual([]);
  const again = await start(...command).whenEnded;
  expect(again).toMatchObject({ code: 1, err: expect.stringContaining('was delivered at') });
  const unknown = await start('replay', '--exchange', '--missed', '99').whenEnded;
  expect(unknown).toMatchObject({ code: 1, err: expect.stringContaining('No range has the number 99') });
});

it('delivers to a queue what its bindings would have brought it, and no more, and binds it again', async () => {
  await insertAccounts(database, 'a');
  await channel.assertQueue(queue, { durable: true });
  await putAside('account.*', 'balance.debited');
  for (const amount of [5, -1, 5, -2]) await applyDirectly(database.pool, 'a', amount);
  await insertAccounts(database, 'b');
  const { code, out, err } = await run('resume', queue, '--json');
  expect({ code, err, ...JSON.parse(out || '{}') }).toMatchObject({
    ...{
      code: 0,
      err: expect.stringMatching(ONLY_PROGRESS),
      queue,
      routingKeys: ['account.*', 'balance.debited'],
      published: 4,
      scanned: 6,
      handedOver: 0,
    },
    complete: true,
  });
  const id = await eventIds(database);
  // Some of it from before it was put aside; the first one is sent to see whether the queue takes
  // it.
  const due = [id('a', 0), id('a', 2), id('a', 4), id('b', 0)];
  expect(await take(queue)).toEqual([due[0], ...due]);
  for (const type of CHANGE_TYPES) channel.publish(exchange, type, Buffer.alloc(0), { messageId: type });
  await until('it is bound', async () => (await channel.checkQueue(queue)).messageCount === 3);
  expect(await take(queue)).toEqual(['account.opened', 'account.changed', 'balance.debited']);
  const { rows } = await database.pool.query(
    'SELECT last_position, delivered_at IS NOT NULL AS delivered, last_created_at <= delivered_at AS ended FROM missed',
  );
  expect(rows).toEqual([{ last_position: 6, delivered: true, ended: true }]);
});

it('changes nothing where the queue is still full, nor where another one resumes it', async () => {
  await insertAccounts(database, 'a');
  await channel.assertQueue(queue, { arguments: { 'x-max-length': 1, 'x-overflow': 'reject-publish' } });
  channel.sendToQueue(queue, Buffer.from('in the way'));
  await channel.bindQueue(queue, exchange, '#');
  await putAside('balance.*'); // it is bound by another key, as by its consumer
  await applyDirectly(database.pool, 'a', 1);
  const refused = start('subscribers', 'resume', queue);
  await until('it is being resumed', async () => {
    const { rows } = await database.pool.query(
      "SELECT FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    );
    return rows.length > 0;
  });
  expect(await run('resume', queue)).toMatchObject({
    code: 1,
    err: expect.stringContaining('Another process is resuming'),
  });
  expect(await refused.whenEnded).toMatchObject({ code: 1, err: expect.stringMatching(/it is full.*still noted/) });
  await channel.purgeQueue(queue);
  channel.publish(exchange, 'any.thing', Buffer.from('bound'));
  await until('its binding is as it was', async () => (await channel.checkQueue(queue)).messageCount === 1);
  expect((await listed()).queues).toMatchObject([{ name: queue, putAside: { fromPosition: 2 } }]);
});

it('is interrupted and made again: nothing is lost', async () => {
  await insertAccounts(database, 'a');
  await channel.assertQueue(queue, { durable: true });
  await putAside('#');
  await applyDirectly(database.pool, 'a', 1, 2000);
  const slow = start('subscribers', 'resume', queue, '--rate', '500', '--json');
  await until('some are there', async () => (await channel.checkQueue(queue)).messageCount >= 300);
  slow.child.kill('SIGTERM');
  const { code, out } = await slow.whenEnded;
  expect({ code, ...JSON.parse(out) }).toMatchObject({ code: 130, complete: false });
  expect((await listed()).queues).toMatchObject([{ name: queue }]);
  expect(await run('resume', queue, '--rate', '100000')).toMatchObject({
    code: 0,
    err: expect.stringMatching(ONLY_PROGRESS),
  });
  const id = await eventIds(database);
  const ids = new Set(await take(queue));
  expect([...ids].filter((each) => each.startsWith('a:'))).toEqual(
    Array.from({ length: 2001 }, (_, at) => id('a', at)),
  );
});

it('resumes a queue that its consumer bound again by itself, under traffic', async () => {
  const { url } = await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  const seen = new Map<string, Handled>();
  const gaps: string[] = [];
  const consume = () => {
    const subscription = subscribeClient({
      ...{ url: broker.url, namespace: broker.namespace, queue, gapTimeoutMs: 500 },
      client: createClient({ url }),
      lastHandled: (accountId) => seen.get(accountId),
      handle: ({ data }, { handled }) => void seen.set(data.accountId, handled),
      onRewind: ({ accountId }) => void gaps.push(`${accountId} was cut`),
      onGap({ accountId, firstMissing }) {
        gaps.push(`${accountId}:${firstMissing}`);
        return 'wait';
      },
    });
    onCleanUp(() => subscription.stop());
    return subscription;
  };
  const first = consume();
  const credit = (accountId: string) => send(url, 'POST', '/v1/balance-updates', { accountId, amount: 1 });
  await until('it consumes', () => first.isConsuming);
  await insertAccounts(database, 'a', 'b');
  for (const id of ['a', 'b']) await credit(id);
  await until('it has them', () => seen.get('a')?.version === 1 && seen.get('b')?.version === 1);
  await putAside('#');
  await first.stop();
  for (let count = 0; count < 20; count += 1) await credit(count % 2 ? 'a' : 'b');
  await drained(database);
  await until(
    'subscribers have them',
    async () => (await send(url, 'GET', '/readyz')).body.outbox.subscribersOldestAgeMs === 0,
  );
  const second = consume(); // it binds the queue
  await until('it consumes', () => second.isConsuming);
  await credit('a');
  await until('it lacks some', () => gaps.length > 0);
  let isRunning = true;
  const traffic = (async () => {
    while (isRunning) await credit('b');
  })();
  onCleanUp(async () => {
    isRunning = false;
    await traffic;
  });
  const resumed = await run('resume', queue);
  isRunning = false;
  await traffic;
  expect(resumed).toMatchObject({ code: 0, err: expect.stringMatching(ONLY_PROGRESS) });
  const truth = async () => (await database.pool.query('SELECT account_id, version FROM account ORDER BY 1')).rows;
  const entries = (await truth()).map(({ account_id, version }) => [account_id, version]);
  const copy = () => [...seen].map(([id, { version }]) => [id, version]).sort();
  await until('it has all', () => JSON.stringify(copy()) === JSON.stringify(entries)).catch(() => {});
  expect(copy()).toEqual(entries);
  expect((await listed()).queues).toEqual([]);
});
