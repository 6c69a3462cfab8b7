// highload-balance replay on real servers: what it publishes, to whom, and that a new subscriber
// who gets the past and then the present misses nothing in between.
import type { Channel, GetMessage } from 'amqplib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readChanges } from '../../src/cli/replay/changes.ts';
import { parseRequest, type ReplayRequest } from '../../src/cli/replay/request.ts';
import { createClient } from '../../src/client/client.ts';
import { type Delivery, type Handled, subscribe as subscribeClient } from '../../src/client/events.ts';
import type { BalanceEvent } from '../../src/shared/contract.ts';
import { openClient } from '../../src/shared/database.ts';
import { ALL_EVENTS, declareTopology } from '../../src/shared/topology.ts';
import { startProxy } from '../chaos/proxy.ts';
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
/** A queue of a subscriber's own; deleted with its broker names. */
let queue: string;
/** Of an account and a version: the id of its event. */
let id: Awaited<ReturnType<typeof eventIds>>;

beforeEach(async () => {
  database = await createDatabase();
  id = await eventIds(database);
  broker = createBroker();
  channel = await (await broker.connect()).createChannel();
  queue = `${broker.namespace}-billing`;
  onCleanUp(async () => {
    const ending = await (await broker.connect()).createChannel();
    await ending.deleteQueue(queue);
  });
});
afterEach(cleanUp);

const environment = () => addressesOf(database, broker);
const start = (...args: string[]) => startCommand(['replay', ...args], environment());
const run = (...args: string[]) => start(...args).whenEnded;

/**
 * Accounts with their opening and a number of credits, recorded in the ledger without their events.
 */
async function pastOf(accounts: readonly string[], credits: number): Promise<void> {
  await database.pool.query(
    `INSERT INTO account (account_id, balance, version, epoch, created_at, updated_at)
     SELECT id, $2::bigint * 5, $2, current_epoch(), '2026-01-01Z', timestamptz '2026-01-01Z' + $2 * interval '1 minute'
     FROM unnest($1::text[]) AS id`,
    [accounts, credits],
  );
  await database.pool.query(
    `INSERT INTO ledger (account_id, version, epoch, created_at, asset, amount, held_change, balance, held,
                         previous_epoch, type, reference, overdraft_limit, status)
     SELECT account_id, entry, epoch, timestamptz '2026-01-01Z' + entry * interval '1 minute', asset, least(entry, 1) * 5, 0, entry * 5, 0,
            CASE WHEN entry > 0 THEN epoch END, CASE WHEN entry > 0 THEN 'balance.credited' ELSE 'account.opened' END,
            CASE WHEN entry > 0 THEN 'order ' || entry END, CASE WHEN entry = 0 THEN 0 END, CASE WHEN entry = 0 THEN 'open' END
     FROM account, generate_series(0, $2) AS entry WHERE account_id = ANY ($1::text[])`,
    [accounts, credits],
  );
}

async function messagesOf(name: string): Promise<GetMessage[]> {
  const messages: GetMessage[] = [];
  for (;;) {
    const message = await channel.get(name, { noAck: true });
    if (!message) return messages;
    messages.push(message);
  }
}

const versions = (accountId: string, first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, index) => id(accountId, first + index));

const idsIn = async (name: string) => (await messagesOf(name)).map(({ properties }) => properties.messageId);

it('publishes to one queue what the events of the past said, marked as replayed', async () => {
  await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  const live = await subscribe(broker);
  await insertAccounts(database, 'a');
  await applyDirectly(database.pool, 'a', 250);
  await applyDirectly(database.pool, 'a', -30);
  await drained(database);
  await until('all events came', () => live.length === 3);
  await channel.assertQueue(queue, { durable: true });

  const { code, out } = await run('--queue', queue, '--all', '--json');
  expect({ code, ...JSON.parse(out) }).toEqual({ code: 0, published: 3, scanned: 3, last: 'a:2', complete: true });
  const replays = await messagesOf(queue);
  expect(replays.map(({ content }) => JSON.parse(content.toString()))).toEqual(live.map(({ body }) => body));
  expect(replays.map(({ properties }) => properties)).toEqual([
    expect.objectContaining({ messageId: id('a', 0), deliveryMode: 2, headers: { 'x-replayed': true } }),
    expect.objectContaining({ messageId: id('a', 1), deliveryMode: 2, headers: { 'x-replayed': true } }),
    expect.objectContaining({ messageId: id('a', 2), contentType: 'application/cloudevents+json' }),
  ]);
  expect(replays.map(({ fields }) => fields.routingKey)).toEqual([queue, queue, queue]);
  expect(live).toHaveLength(3); // nobody else got them
});

it('publishes to all subscribers, and not to the worker', async () => {
  await startApiHere(database, broker);
  const worker = await startWorkerHere(database, broker);
  await pastOf(['a', 'b'], 3);
  const live = await subscribe(broker);
  const credits = await subscribe(broker, 'balance.credited');
  expect(await run('--exchange', '--account', 'b')).toMatchObject({
    code: 0,
    out: expect.stringContaining('4 events published to all subscribers'),
  });
  await until('they came', () => live.length === 4 && credits.length === 3);
  const told = ({ messageId, headers }: (typeof live)[number]) => [messageId, headers['x-replayed']];
  expect(live.map(told)).toEqual(versions('b', 0, 3).map((each) => [each, true]));
  expect(credits.map(told)).toEqual(versions('b', 1, 3).map((each) => [each, true]));
  expect(live.map(({ routingKey }) => routingKey)).toEqual([
    'account.opened',
    ...Array.from({ length: 3 }, () => 'balance.credited'),
  ]);
  expect(worker.consumer.counts).toMatchObject({ duplicates: 0, forged: 0 });
  expect((await database.pool.query('SELECT count(*) AS rows FROM ledger')).rows[0].rows).toBe(8);
});

it('publishes what the ledger lacks as yet, from the outbox', async () => {
  await pastOf(['a'], 2);
  await applyDirectly(database.pool, 'a', 7);
  await channel.assertQueue(queue, { durable: true });
  expect(await run('--queue', queue, '--all')).toMatchObject({ code: 0 });
  expect(await idsIn(queue)).toEqual(versions('a', 0, 3));
});

it('takes each option for what it says', async () => {
  await pastOf(['c:x', 'b', 'a'], 4);
  const client = await openClient(database.url, 'test');
  onCleanUp(() => client.end());
  for (const [options, ids] of [
    ['--account b', ['b:0', 'b:1', 'b:2', 'b:3', 'b:4']],
    ['--account b --to-version 0', ['b:0']],
    ['--account b --from-version 0 --to-version 1', ['b:0', 'b:1']],
    ['--account b --from-version 2 --to-version 3', ['b:2', 'b:3']],
    ['--account b --after b:3', ['b:4']],
    ['--account b --from-version 3 --after b:1', ['b:3', 'b:4']],
    ['--account b --from-version 0 --after b:0', ['b:1', 'b:2', 'b:3', 'b:4']],
    ['--all --after b:2', ['b:3', 'b:4', 'c:x:0', 'c:x:1', 'c:x:2', 'c:x:3', 'c:x:4']],
    ['--all --after c:x:3', ['c:x:4']],
    ['--to-version 0', ['a:0', 'b:0', 'c:x:0']],
    ['--to-version 1', ['a:0', 'a:1', 'b:0', 'b:1', 'c:x:0', 'c:x:1']],
    ['--from 2026-01-01T00:02:00Z --to 2026-01-01T02:03:00+02:00', ['a:2', 'b:2', 'c:x:2']],
  ] as const) {
    const { selection, after } = parseRequest(['--queue', 'q', ...options.split(' ')]) as ReplayRequest;
    const read: string[] = [];
    for await (const { changes } of readChanges(client, selection, after)) {
      read.push(...changes.map(({ accountId, version }) => `${accountId}:${version}`));
    }
    expect({ options, ids: read }).toEqual({ options, ids });
  }
});

it('publishes to all where nobody is bound for some types, or at all', async () => {
  await pastOf(['a'], 3);
  await declareTopology(channel, broker.topology);
  expect(await run('--exchange', '--all')).toMatchObject({ code: 0, err: expect.stringMatching(ONLY_PROGRESS) });
  const opened = await subscribe(broker, 'account.*');
  expect(await run('--exchange', '--all')).toMatchObject({ code: 0, err: expect.stringMatching(ONLY_PROGRESS) });
  await until('it came', () => opened.length === 1);
});

it('reads what was created since a moment without what was before, and nothing less', async () => {
  await pastOf(['a', 'b', 'd'], 3);
  await pastOf(['c'], 5000);
  const many = Array.from({ length: 1500 }, (_, index) => `many-${index}`);
  await pastOf(many, 2);
  await insertAccounts(database, 'e', 'f'); // now, and in the outbox alone
  await applyDirectly(database.pool, 'a', 1, 3);
  const client = await openClient(database.url, 'test');
  onCleanUp(() => client.end());
  const read = async (...options: string[]) => {
    const { selection, after } = parseRequest(['--queue', 'q', ...options]) as ReplayRequest;
    const found: string[] = [];
    let scanned = 0;
    for await (const page of readChanges(client, selection, after)) {
      expect(page.scanned).toBeLessThanOrEqual(2000);
      scanned += page.scanned;
      found.push(...page.changes.map(({ accountId, version, createdAt }) => `${+createdAt} ${accountId}:${version}`));
    }
    return { found, scanned };
  };
  const { found: all } = await read('--all');
  expect(all).toHaveLength(3 * 4 + 5001 + 1500 * 3 + 2 + 3);
  const at = (index: number) => new Date(Date.parse('2026-01-01Z') + index * 60_000).toISOString();
  for (const from of [at(0), at(1), at(2), at(3), at(4), at(4000), at(1_000_000)]) {
    const due = all.filter((each) => Number(each.split(' ')[0]) >= Date.parse(from));
    const { found, scanned } = await read('--from', from);
    expect([from, found]).toEqual([from, due]);
    expect(scanned - due.length, from).toBeLessThanOrEqual(3); // what the ledger lacks of an account, its past is searched without
    for (const after of ['a:4', 'a:9', 'b:2', 'c:4200', 'many-77:1', 'f:0']) {
      const [, position] = due.find((each) => each.endsWith(` ${after}`))?.split(' ') ?? [];
      if (!position) continue;
      const rest = due.slice(due.findIndex((each) => each.endsWith(` ${after}`)) + 1);
      expect([after, (await read('--from', from, '--after', after)).found]).toEqual([after, rest]);
    }
  }
});

it('goes from page to page', async () => {
  await pastOf(['a', 'b', 'c'], 1500);
  await channel.assertQueue(queue, { durable: true });
  const { out } = await run('--queue', queue, '--all', '--rate', '100000', '--json');
  expect(JSON.parse(out)).toMatchObject({ published: 4503, scanned: 4503, last: 'c:1500' });
  const ids = await idsIn(queue);
  expect(ids).toHaveLength(4503);
  expect([ids[1500], ids[1501], new Set(ids).size]).toEqual([id('a', 1500), id('b', 0), 4503]);
});

it('says what is missing, and publishes nothing then', async () => {
  await pastOf(['a'], 1);
  const names = (...args: string[]) => run(...args).then(({ code, err }) => ({ code, err }));
  expect(await names('--queue', queue, '--all')).toEqual({
    code: 1,
    err: expect.stringContaining('There is no queue'),
  });
  expect(await names('--exchange', '--all')).toEqual({ code: 1, err: expect.stringContaining('There is no exchange') });
  await channel.assertQueue(queue, { durable: true });
  expect(await names('--queue', queue, '--account', 'b')).toEqual({
    code: 1,
    err: expect.stringContaining('There is no account b'),
  });
  expect(await names('--queue', broker.topology.ledgerQueue, '--all')).toEqual({
    code: 2,
    err: expect.stringContaining('belong to the service'),
  });
  expect(await idsIn(queue)).toEqual([]);
});

it('keeps to the rate, can be interrupted, and continues where it was', async () => {
  await pastOf(['a'], 4000);
  await channel.assertQueue(queue, { durable: true });
  const slow = start('--queue', queue, '--all', '--rate', '1000', '--json');
  await until('some are there', async () => (await channel.checkQueue(queue)).messageCount >= 500);
  const startedMs = performance.now();
  const had = (await channel.checkQueue(queue)).messageCount;
  await until('more are there', async () => (await channel.checkQueue(queue)).messageCount >= had + 1000);
  expect(performance.now() - startedMs).toBeGreaterThan(800);
  slow.child.kill('SIGTERM');
  const { code, out } = await slow.whenEnded;
  const stopped = JSON.parse(out);
  expect({ code, ...stopped }).toMatchObject({ code: 130, complete: false });
  const { code: rest } = await run('--queue', queue, '--all', '--after', stopped.last, '--rate', '100000');
  expect(rest).toBe(0);
  expect(new Set(await idsIn(queue)).size).toBe(4001);
});

it('says so when a queue has no room, and where to go on', { timeout: 60_000 }, async () => {
  await pastOf(['a'], 100);
  await channel.assertQueue(queue, {
    durable: true,
    arguments: { 'x-max-length': 10, 'x-overflow': 'reject-publish' },
  });
  expect(await run('--queue', queue, '--all')).toMatchObject({ code: 1, err: expect.stringContaining('it is full') });
});

it('says whose failure it was when the database goes down, and where to continue', async () => {
  await pastOf(['a'], 6000);
  await channel.assertQueue(queue, { durable: true });
  const slow = start('--queue', queue, '--all', '--rate', '1000');
  await until('some are there', async () => (await channel.checkQueue(queue)).messageCount >= 500);
  await database.pool.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE application_name = 'highload-balance replay' AND datname = current_database()`,
  );
  expect(await slow.whenEnded).toMatchObject({
    code: 1,
    out: '',
    err: expect.stringMatching(/^PostgreSQL: .*Continue with --after=a:\d+\.$/m),
  });
});

it('says so when the connection to RabbitMQ is lost, and where to go on', async () => {
  await pastOf(['a'], 6000);
  await channel.assertQueue(queue, { durable: true });
  const proxy = await startProxy({ port: Number(new URL(broker.url).port || 5672) });
  onCleanUp(() => proxy.close());
  const through = new URL(broker.url);
  through.port = String(proxy.port);
  const args = ['replay', '--queue', queue, '--all', '--rate', '1000'];
  const slow = startCommand(args, { ...environment(), AMQP_URL: through.href });
  await until('some are there', async () => (await channel.checkQueue(queue)).messageCount >= 500);
  for (const connection of proxy.connections()) connection.cut();
  expect(await slow.whenEnded).toMatchObject({
    code: 1,
    out: '',
    err: expect.stringMatching(/^RabbitMQ at .* cannot be used: .+ Continue with --after=a:\d+\.$/m),
  });
});

it('hands over to a queue that is bound already: the present waits for the past all the same', async () => {
  await pastOf(['a'], 300);
  await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  await channel.assertQueue(queue, {
    durable: true,
    arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 1_000_000, 'x-single-active-consumer': true },
  });
  await declareTopology(channel, broker.topology);
  await channel.bindQueue(queue, broker.topology.eventsExchange, ALL_EVENTS);
  const replaying = start('--queue', queue, '--all', '--hand-over', '--rate', '300');
  await until('some are there', async () => (await channel.checkQueue(queue)).messageCount >= 30);
  await applyDirectly(database.pool, 'a', 5);
  expect(await replaying.whenEnded).toMatchObject({
    code: 0,
    out: expect.stringContaining(' 1 messages came meanwhile'),
  });
  await applyDirectly(database.pool, 'a', 5);
  await drained(database);
  const ids: string[] = [];
  await channel.consume(queue, (message) => ids.push(message?.properties.messageId), { noAck: true });
  await until('all are there', () => new Set(ids).size >= 303);
  expect([...new Set(ids)]).toEqual(versions('a', 0, 302)); // some come twice
});

it('hands over to a queue that was bound by type: the present waits for the past there too', async () => {
  await pastOf(['a'], 200);
  await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  await channel.assertQueue(queue, {
    durable: true,
    arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 1_000_000, 'x-single-active-consumer': true },
  });
  await declareTopology(channel, broker.topology);
  for (const pattern of ['balance.credited', 'hold.*', 'balance.#', '*.opened']) {
    await channel.bindQueue(queue, broker.topology.eventsExchange, pattern);
  }
  const replaying = start('--queue', queue, '--all', '--hand-over', '--rate', '300');
  await until('some are there', async () => (await channel.checkQueue(queue)).messageCount >= 30);
  await applyDirectly(database.pool, 'a', 5);
  expect(await replaying.whenEnded).toMatchObject({ code: 0 });
  const ids: string[] = [];
  await channel.consume(queue, (message) => ids.push(message?.properties.messageId), { noAck: true });
  await until('all are there', () => new Set(ids).size >= 202);
  expect([...new Set(ids)]).toEqual(versions('a', 0, 201));
});

it('hands over to no queue of another kind, and touches none', async () => {
  await pastOf(['a'], 3);
  await channel.assertQueue(queue, { durable: true });
  channel.sendToQueue(queue, Buffer.from('mine'));
  await until('it is there', async () => (await channel.checkQueue(queue)).messageCount === 1);
  const { code, err } = await run('--queue', queue, '--all', '--hand-over');
  expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining(`The queue ${queue} is of another kind`) });
  expect(err).not.toContain('delete');
  expect(await messagesOf(queue)).toHaveLength(1);
});

it('hands over from the past to the present without a gap, under traffic', { timeout: 120_000 }, async () => {
  const accounts = Array.from({ length: 20 }, (_, index) => `account-${index}`);
  await pastOf(accounts, 150);
  const { url } = await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  await subscribe(broker);

  // Traffic from before the replay to after it.
  let running = true;
  let sent = 0;
  const traffic = Promise.all(
    Array.from({ length: 4 }, async (_, client) => {
      for (let turn = 0; running; turn += 1) {
        const accountId = accounts[(client + turn * 4) % accounts.length];
        const { status } = await send(url, 'POST', '/v1/balance-updates', { accountId, amount: 1 });
        if (status === 200) sent += 1;
      }
    }),
  );
  onCleanUp(async () => {
    running = false;
    await traffic;
  });
  await until('there is traffic', () => sent > 200);

  const replaying = start('--queue', queue, '--all', '--hand-over', '--rate', '1500', '--json');
  // A subscriber that may hold little: the present before the past would stop it for good.
  const seen = new Map<string, Handled>();
  const gaps: string[] = [];
  let replays = 0;
  await until('the queue is there', () => queueExists());
  const subscription = subscribeClient({
    url: broker.url,
    namespace: broker.namespace,
    queue,
    declareQueue: false,
    prefetch: 50,
    gapTimeoutMs: 2000,
    client: createClient({ url }),
    lastHandled: (accountId) => seen.get(accountId),
    handle({ data }: BalanceEvent, delivery: Delivery) {
      if (delivery.replayed) replays += 1;
      seen.set(data.accountId, delivery.handled);
    },
    onGap({ accountId, firstMissing }) {
      gaps.push(`${accountId}:${firstMissing}`);
      return 'wait';
    },
    onRewind({ accountId, event }) {
      gaps.push(`${accountId} was cut at ${event.id}`);
    },
  });
  onCleanUp(() => subscription.stop());
  const { code, out } = await replaying.whenEnded;
  expect({ code, ...JSON.parse(out) }).toMatchObject({ code: 0, complete: true });
  expect(JSON.parse(out).handedOver).toBeGreaterThan(0);
  const sentAtHandOver = sent;
  await until('the present continues', () => sent > sentAtHandOver + 200);
  running = false;
  await traffic;
  await drained(database);

  const { rows } = await database.pool.query(
    'SELECT account_id AS id, version, balance FROM account ORDER BY account_id',
  );
  const truth = rows.map(({ id, version, balance }) => [id, { version, balance }]);
  const copy = () =>
    [...seen]
      .map(([id, { version, balance }]) => [id, { version, balance }] as const)
      .sort(([one], [other]) => (one < other ? -1 : 1));
  await until('the copy is whole', () => JSON.stringify(copy()) === JSON.stringify(truth)).catch(() => {});
  expect(copy()).toEqual(truth);
  expect(gaps).toEqual([]);
  expect(replays).toBeGreaterThan(20 * 151);
});

/** A look at a queue that is not there ends the channel. */
async function queueExists(): Promise<boolean> {
  const look = await (await broker.connect()).createChannel();
  look.on('error', () => {});
  return look.checkQueue(queue).then(
    () => true,
    () => false,
  );
}
