// The relay against the ways in which an outbox loses, reorders or blocks events.
import type { Channel } from 'amqplib';
import pg from 'pg';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { startRelay } from '../../src/api/relay/relay.ts';
import type { Change } from '../../src/shared/change.ts';
import { readApiSettings } from '../../src/shared/config.ts';
import { type BalanceEvent, CHANGE_TYPES } from '../../src/shared/contract.ts';
import { openClient } from '../../src/shared/database.ts';
import { createLogger } from '../../src/shared/logging.ts';
import { ALL_EVENTS, declareTopology } from '../../src/shared/topology.ts';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  eventIds,
  insertAccounts,
  insertChange,
  makeChange,
  onCleanUp,
  outboxChanges,
  pendingChanges,
  recordDirectly,
  send,
  startApiHere,
  startWorkerHere,
  subscribe,
  until,
} from '../support/harness.ts';

/** Long enough to play no part: the test is about the first publish. */
const NEVER_REPUBLISH = { RELAY_REPUBLISH_MS: '3600000' };

let database: Database;
let broker: Broker;
let channel: Channel;
/** Of an account and a version: the id of its event. */
let id: Awaited<ReturnType<typeof eventIds>>;

// The openings of both accounts are the first two changes that the relay finds.
beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
  channel = await (await broker.connect()).createChannel();
  await declareTopology(channel, broker.topology);
  await insertAccounts(database, 'a', 'b');
  id = await eventIds(database);
});
afterEach(cleanUp);

async function transaction(): Promise<pg.Client> {
  const client = await openClient(database.url, 'test transaction');
  onCleanUp(() => client.end());
  await client.query('BEGIN');
  return client;
}

/** Start of the newest query of any relay connection, as milliseconds. */
async function relayQueriedAt(): Promise<number> {
  const { rows } = await database.pool.query(
    `SELECT max(query_start) AS at FROM pg_stat_activity
     WHERE application_name = 'highload-balance relay' AND datname = current_database() AND query LIKE '%outbox WHERE position%'`,
  );
  return rows[0].at?.getTime() ?? 0;
}

/** Messages that hold several events, as they arrive. */
async function subscribeBatches(pattern: string): Promise<BalanceEvent[][]> {
  const batches: BalanceEvent[][] = [];
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.bindQueue(queue, broker.topology.eventsExchange, pattern);
  await channel.consume(queue, (message) => message && batches.push(JSON.parse(message.content.toString())), {
    noAck: true,
  });
  return batches;
}

async function relayState(url: string) {
  return (await send(url, 'GET', '/readyz')).body.relay;
}

it('publishes every change once, in version order, as the documented CloudEvent', async () => {
  const received = await subscribe(broker);
  const { url } = await startApiHere(database, broker);
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  const update = { accountId: 'a', amount: 5, reference: 'first' };
  const first = await send(url, 'POST', '/v1/balance-updates', update, { traceparent });
  await send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: -2 });
  await until('all events arrived', () => received.length === 4);
  const opening = (await outboxChanges(database, 'a'))[0] as Change;
  const { epoch } = opening;
  const shared = { specversion: '1.0', source: '/highload-balance', subject: 'a', datacontenttype: 'application/json' };
  const unheld = { asset: 'UNIT', heldChange: 0, held: 0 };
  expect(received[0]).toEqual({
    routingKey: 'account.opened',
    messageId: id('a', 0),
    headers: {},
    body: {
      ...shared,
      id: id('a', 0),
      type: 'account.opened',
      time: opening.createdAt.toISOString(),
      data: {
        ...{ accountId: 'a', version: 0, epoch, ...unheld, amount: 0, balance: 0 },
        limits: { overdraftLimit: 0, status: 'open' },
      },
    },
  });
  expect(received[1]).toMatchObject({ routingKey: 'account.opened', messageId: id('b', 0) });
  expect(received[2]).toEqual({
    routingKey: 'balance.credited',
    messageId: id('a', 1),
    headers: { traceparent },
    body: {
      ...shared,
      id: id('a', 1),
      type: 'balance.credited',
      time: first.body.createdAt,
      data: {
        ...{ accountId: 'a', version: 1, epoch, previousEpoch: epoch, ...unheld },
        ...{ amount: 5, balance: 5, reference: 'first' },
      },
    },
  });
  expect(received[3]).toMatchObject({
    routingKey: 'balance.debited',
    headers: {},
    body: { id: id('a', 2), data: { version: 2, amount: -2, balance: 3 } },
  });
});

/** After the opening of `a`, one change of each other type: no account can have all of them yet. */
async function oneOfEachType(): Promise<void> {
  for (const [version, type] of CHANGE_TYPES.entries()) {
    const amount = type === 'balance.credited' ? 1 : type === 'balance.debited' ? -1 : 0;
    if (version > 0) await insertChange(database, 'outbox', makeChange({ accountId: 'a', version, type, amount }));
  }
}

it('routes each type by its own key, to queues bound to all events and to queues bound to some', async () => {
  const all = await subscribe(broker);
  const some = new Map<string, Awaited<ReturnType<typeof subscribe>>>();
  for (const pattern of ['account.*', 'balance.*', 'hold.*', 'hold.expired']) {
    some.set(pattern, await subscribe(broker, pattern));
  }
  await oneOfEachType();
  await startApiHere(database, broker, NEVER_REPUBLISH);
  await until('all events arrived', () => all.length === CHANGE_TYPES.length + 1);
  const types = ['account.opened', 'account.opened', ...CHANGE_TYPES.slice(1)]; // of a, of b, and the others of a
  expect(all.map(({ routingKey }) => routingKey)).toEqual(types);
  expect(all.map(({ body }) => body.type)).toEqual(types);
  for (const [pattern, received] of some) {
    const wanted = types.filter((type) => type.startsWith(pattern.replace('*', '')));
    await until(`${pattern} has all of its own`, () => received.length >= wanted.length);
    expect(received.map(({ routingKey }) => routingKey)).toEqual(wanted);
  }
});

it('routes a message with several types once to each queue that is bound to any of them', async () => {
  const queues = new Map<string, BalanceEvent[][]>();
  const patterns = [ALL_EVENTS, 'account.*', 'balance.*', 'hold.*', ...CHANGE_TYPES];
  for (const pattern of patterns) queues.set(pattern, await subscribeBatches(pattern));
  const keys: unknown[] = [];
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.bindQueue(queue, broker.topology.eventsExchange, ALL_EVENTS);
  await channel.consume(queue, (message) => keys.push([message?.fields.routingKey, message?.properties.headers?.CC]), {
    noAck: true,
  });
  await oneOfEachType();
  await startApiHere(database, broker, { ...NEVER_REPUBLISH, EVENTS_PER_MESSAGE_MAX: '100' });
  for (const [pattern, batches] of queues) {
    await until(`${pattern} has its message`, () => batches.length > 0);
    expect(batches.map((batch) => batch.length)).toEqual([CHANGE_TYPES.length + 1]);
  }
  await until('its keys are seen', () => keys.length > 0);
  expect(keys).toEqual([['account.opened', CHANGE_TYPES.slice(1)]]);
});

it('keeps a confirmed change pending until the ledger holds it', async () => {
  const received = await subscribe(broker);
  const { url } = await startApiHere(database, broker);
  await applyDirectly(database.pool, 'a', 1);
  await until('all events were confirmed', async () => (await relayState(url)).ledger.confirmed >= 3);
  await until('all events arrived', () => received.length >= 3);
  expect(await pendingChanges(database)).toBe(3);
  await startWorkerHere(database, broker);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 3, offendingAccounts: 0 });
});

it.each(['purged', 'deleted'] as const)('heals by itself when the ledger queue was %s', async (loss) => {
  await subscribe(broker); // keeps the publishes routable: they are confirmed although the ledger queue is gone
  const { url } = await startApiHere(database, broker);
  for (let count = 0; count < 50; count += 1) await applyDirectly(database.pool, count % 2 ? 'a' : 'b', 1);
  await until('all were confirmed', async () => (await relayState(url)).ledger.confirmed >= 52);
  if (loss === 'purged') await channel.purgeQueue(broker.topology.ledgerQueue);
  else await channel.deleteQueue(broker.topology.ledgerQueue);
  await applyDirectly(database.pool, 'a', 1);
  await startWorkerHere(database, broker);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 53, pendingChanges: 0, offendingAccounts: 0 });
});

it('heals when events were lost under a worker that never stops recording newer ones', async () => {
  const { url } = await startApiHere(database, broker);
  for (let count = 0; count < 20; count += 1) await applyDirectly(database.pool, 'a', 1);
  await until('they were confirmed', async () => (await relayState(url)).ledger.confirmed >= 22);
  await channel.purgeQueue(broker.topology.ledgerQueue);
  await startWorkerHere(database, broker);
  let busy = true;
  const traffic = (async () => {
    while (busy) await applyDirectly(database.pool, 'b', 1);
  })();
  await until('the lost ones are recorded', async () => {
    const { rows } = await database.pool.query(`SELECT count(*) AS count FROM ledger WHERE account_id = 'a'`);
    return rows[0].count === 21;
  });
  busy = false;
  await traffic;
  expect(await drained(database)).toMatchObject({ offendingAccounts: 0 });
});

it('publishes a change that committed after a later position, and in version order', async () => {
  const received = await subscribe(broker);
  await startApiHere(database, broker, NEVER_REPUBLISH);
  const late = await transaction();
  await applyDirectly(late, 'a', 1);
  await applyDirectly(database.pool, 'b', 1);
  await until('the later position was published', () => received.some((event) => event.messageId === id('b', 1)));
  const after = applyDirectly(database.pool, 'a', 1); // waits for the lock that `late` holds
  await late.query('COMMIT');
  await after;
  await until('both late ones arrived', () => received.length === 5, 5000);
  const ids = [id('a', 0), id('b', 0), id('b', 1), id('a', 1), id('a', 2)];
  expect(received.map((event) => event.messageId)).toEqual(ids);
});

it('waits for a late change whose transaction is newer than every one that has ended', async () => {
  const received = await subscribe(broker);
  await startApiHere(database, broker, NEVER_REPUBLISH);
  const older = await transaction();
  await older.query('SELECT pg_current_xact_id()');
  const newer = await transaction();
  await applyDirectly(newer, 'a', 1); // the lower position in the newer transaction
  await applyDirectly(older, 'b', 1);
  await older.query('COMMIT');
  await until('the higher position was published', () => received.length === 3);
  const seenAt = await relayQueriedAt();
  for (let reads = 0, last = seenAt; reads < 3; reads += 1) {
    await until('the relay has read once more', async () => (await relayQueriedAt()) > last);
    last = await relayQueriedAt();
  }
  await newer.query('COMMIT');
  await until('the lower one arrived', () => received.length === 4, 5000);
});

it('keeps flowing while an unrelated write transaction stays open', async () => {
  const received = await subscribe(broker);
  await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  const idle = await transaction();
  await idle.query('CREATE TABLE unrelated ()');
  for (let count = 1; count <= 20; count += 1) {
    await applyDirectly(database.pool, 'a', 1);
    await until('the event arrived', () => received.length === 2 + count, 2000);
  }
  expect(await drained(database)).toMatchObject({ ledgerEntries: 22, offendingAccounts: 0 });
});

it('gets over a rolled-back position while an unrelated write transaction stays open', async () => {
  const received = await subscribe(broker);
  await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  const idle = await transaction();
  await idle.query('CREATE TABLE unrelated ()');
  const lost = await transaction();
  await applyDirectly(lost, 'a', 1);
  await lost.query('ROLLBACK');
  await applyDirectly(database.pool, 'b', 1);
  await until('the event arrived', () => received.length === 3, 2000);
  await until('the progress passes the hole', async () => {
    const { rows } = await database.pool.query(
      `SELECT max(position) AS position FROM relay_progress WHERE track = 'ledger'`,
    );
    return rows[0].position === 4; // two openings, the hole, and the one after it
  });
});

it('starts from the beginning when the noted progress is ahead of the sequence, as after a logical failover', async () => {
  await database.pool.query(`INSERT INTO relay_progress (track, position) VALUES ('ledger', 1000000)`);
  const received = await subscribe(broker);
  await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  await applyDirectly(database.pool, 'a', 1);
  await until('all events arrived', () => new Set(received.map(({ messageId }) => messageId)).size === 3);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 3, offendingAccounts: 0 });
});

it('starts from the beginning when something below the noted progress is not in the ledger', async () => {
  await applyDirectly(database.pool, 'a', 1);
  for (const opened of ['a', 'b']) await recordDirectly(database, opened, 0, 0);
  await database.pool.query(`INSERT INTO relay_progress (track, position) VALUES ('ledger', 3)`);
  await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 3, offendingAccounts: 0 });
});

it('packs events into batches when it may, with all types in one, for every subscriber and the ledger', async () => {
  const all = await subscribeBatches(ALL_EVENTS);
  const money = await subscribeBatches('balance.*');
  const debits = await subscribeBatches('balance.debited');
  for (let count = 0; count < 250; count += 1) await applyDirectly(database.pool, 'a', count % 2 ? -1 : 2);
  await startApiHere(database, broker, { EVENTS_PER_MESSAGE_MAX: '100' });
  await startWorkerHere(database, broker);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 252, offendingAccounts: 0 });
  const ids = [id('a', 0), id('b', 0), ...Array.from({ length: 250 }, (_, index) => id('a', index + 1))];
  for (const received of [all, money]) {
    await until('all events arrived', () => received.flat().length === 252);
    expect(received.map((batch) => batch.length)).toEqual([100, 100, 52]);
    expect(received.flat().map((event) => event.id)).toEqual(ids);
  }
  await until(
    'the debits arrived',
    () => debits.flat().filter((event) => event.type === 'balance.debited').length === 125,
  );
});

/** A queue with room for one message, which refuses all others. */
async function fullQueue(pattern: string): Promise<string> {
  const { queue } = await channel.assertQueue('', {
    exclusive: true,
    arguments: { 'x-max-length': 1, 'x-overflow': 'reject-publish' },
  });
  await channel.bindQueue(queue, broker.topology.eventsExchange, pattern);
  return queue;
}

it('keeps the ledger going, and the other subscribers, beside a full queue with a long backlog', async () => {
  await fullQueue(ALL_EVENTS);
  const received = await subscribe(broker);
  const backlog = 12_000;
  await applyDirectly(database.pool, 'a', 1, backlog);
  const { url } = await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  expect(await drained(database)).toMatchObject({ ledgerEntries: backlog + 2, offendingAccounts: 0 });
  await until('the neighbour has all', () => new Set(received.map(({ messageId }) => messageId)).size === backlog + 2);
  await until('they are refused', async () => (await relayState(url)).subscribers.rejected >= backlog);
  expect(received.length).toBeLessThan(backlog + 100); // 47,995 of 8,000 were seen
  await applyDirectly(database.pool, 'b', 1);
  expect(await drained(database)).toMatchObject({ ledgerEntries: backlog + 3 });
});

it('notes what a full queue refused for too long, and lets go of it', async () => {
  await fullQueue('balance.debited');
  const { url } = await startApiHere(database, broker, { SUBSCRIBER_PATIENCE_MS: '4000' });
  await startWorkerHere(database, broker);
  await applyDirectly(database.pool, 'a', 100);
  for (let count = 0; count < 5; count += 1) await applyDirectly(database.pool, 'a', -1);
  await drained(database);
  await until('subscribers are seen to wait', async () => (await relayState(url)).subscribers.waiting !== undefined);
  const { waiting } = (await relayState(url)).subscribers;
  const debits = await outboxPositions(-1);
  expect(waiting).toMatchObject({ firstPosition: debits[1], lastPosition: debits.at(-1), queues: [] });
  expect(waiting.forMs).toBeGreaterThanOrEqual(3000);
  await until('they are passed over', async () => (await relayState(url)).subscribers.passedOver === 4);
  const { rows } = await database.pool.query('SELECT queue, first_position, last_position, delivered_at FROM missed');
  expect(rows).toEqual([{ queue: null, first_position: debits[1], last_position: debits.at(-1), delivered_at: null }]);
  await until('nobody waits', async () => (await relayState(url)).subscribers.waiting === undefined);
});

async function outboxPositions(amount: number): Promise<number[]> {
  const text = 'SELECT position FROM outbox WHERE amount = $1 ORDER BY position';
  return (await database.pool.query(text, [amount])).rows.map(({ position }) => position);
}

it('delivers a rejected event after its subscriber made room', async () => {
  const full = await fullQueue('balance.*');
  const { url } = await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  await applyDirectly(database.pool, 'a', 1);
  await until('the queue is full', async () => (await channel.checkQueue(full)).messageCount === 1);
  await applyDirectly(database.pool, 'a', 1);
  await until('it was rejected', async () => (await relayState(url)).subscribers.rejected >= 1);
  const ids = new Set<string>();
  await until('both reached the subscriber', async () => {
    const message = await channel.get(full, { noAck: true });
    if (message) ids.add(message.properties.messageId);
    return ids.size === 2;
  });
  await drained(database);
  expect((await relayState(url)).subscribers.passedOver).toBe(0);
});

it('hands over to another process when the active one loses its lock', async () => {
  const received = await subscribe(broker);
  const first = await startApiHere(database, broker);
  await until('the first is active', async () => (await relayState(first.url)).active);
  const second = await startApiHere(database, broker);
  const { rows } = await database.pool.query(
    `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
  );
  expect(rows).toHaveLength(1);
  await first.stop();
  await until('the second is active', async () => (await relayState(second.url)).active);
  await applyDirectly(database.pool, 'a', 1);
  await until('its event arrived', () => received.some((event) => event.messageId === id('a', 1)));
});

it('becomes active again after its database connection was cut', async () => {
  const received = await subscribe(broker);
  const { url } = await startApiHere(database, broker);
  await until('it is active', async () => (await relayState(url)).active);
  await database.pool.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'highload-balance relay' AND datname = current_database()`,
  );
  await applyDirectly(database.pool, 'a', 1);
  await until('its event arrived', () => received.some((event) => event.messageId === id('a', 1)));
});

/** A relay that is active beside the first. */
function startSecondRelay() {
  const settings = readApiSettings({ DATABASE_URL: database.url, AMQP_URL: broker.url, RELAY_REPUBLISH_MS: '500' });
  const log = createLogger('test', 'silent');
  const relay = startRelay({ ...settings, topology: broker.topology, log, lockKey: 1 });
  onCleanUp(relay.stop);
  return relay;
}

it('loses nothing when two relays both believe that they are the active one', async () => {
  const received = await subscribe(broker);
  const { url } = await startApiHere(database, broker);
  await until('the first is active', async () => (await relayState(url)).active);
  await startWorkerHere(database, broker);
  const second = startSecondRelay();
  await until('so is the second', () => second.state().active);
  for (let count = 0; count < 300; count += 1) await applyDirectly(database.pool, count % 2 ? 'a' : 'b', 1);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 302, offendingAccounts: 0 });
  await until('the subscriber has all of them', () => new Set(received.map((event) => event.messageId)).size === 302);
});

it('does not flood a slow worker: a long queue is no reason to publish again', async () => {
  const { url } = await startApiHere(database, broker);
  for (let count = 0; count < 100; count += 1) await applyDirectly(database.pool, 'a', 1);
  await until('all were confirmed', async () => (await relayState(url)).ledger.confirmed === 102);
  const patienceOver = Date.now() + 2000; // four times RELAY_REPUBLISH_MS
  await until('several loss checks have passed', () => Date.now() > patienceOver);
  expect((await relayState(url)).ledger).toMatchObject({ confirmed: 102, republished: 0 });
  const { ledgerQueueMessages } = await declareTopology(channel, broker.topology);
  expect(ledgerQueueMessages).toBeLessThanOrEqual(102); // several events a message
});

it('looks for lost events in small statements, and not again at once when there are none', async () => {
  const CHANGES = 20_000;
  await applyDirectly(database.pool, 'a', 1, CHANGES);
  const ranges: { above: number; upTo: number }[] = [];
  const query = pg.Client.prototype.query;
  const noted = function (this: pg.Client, ...parameters: unknown[]) {
    const { name, values } = parameters[0] as { name?: string; values: number[] };
    const [above = 0, upTo = 0] = name === 'outbox_unrecorded' ? values : [];
    if (upTo > 0) ranges.push({ above, upTo });
    return (query as (...parameters: unknown[]) => unknown).apply(this, parameters);
  };
  const spy = vi.spyOn(pg.Client.prototype, 'query').mockImplementation(noted as never);
  onCleanUp(async () => void spy.mockRestore());
  const relay = startSecondRelay();
  const counts = () => relay.state().ledger;
  await until('all were confirmed', () => counts().confirmed === CHANGES + 2);
  // The worker has recorded all of them but the first, whose place an entry has that contradicts
  // it: it stays pending for good.
  for (const opened of ['a', 'b']) await recordDirectly(database, opened, 0, 0);
  await insertChange(database, 'ledger', makeChange({ accountId: 'a', version: 1, amount: 2, balance: 2 }));
  await recordDirectly(database, 'a', 2, CHANGES);
  await channel.purgeQueue(broker.topology.ledgerQueue);
  const startedAtMs = performance.now();
  await until('it has looked several times', () => ranges.length >= 4);
  expect(performance.now() - startedAtMs).toBeGreaterThan(1000); // each time after its patience of 500 ms
  for (const { above, upTo } of ranges) expect(upTo - above).toBeLessThanOrEqual(5000);
  expect(counts().republished).toBe(0);
});
