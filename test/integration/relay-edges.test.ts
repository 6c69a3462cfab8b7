// The relay where two things happen at once: a connection that ends in the middle of a step, a
// restart with something owed, a sequence left behind. Each of these lost, held up or doubled
// events once.
import net from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel } from 'amqplib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { noteQueuePutAside } from '../../src/api/relay/missed.ts';
import { startRelay } from '../../src/api/relay/relay.ts';
import { unbind } from '../../src/api/relay/sick-queues.ts';
import { readPutAside } from '../../src/cli/subscribers/missed.ts';
import { forget } from '../../src/cli/subscribers/resume.ts';
import { readApiSettings } from '../../src/shared/config.ts';
import { openClient } from '../../src/shared/database.ts';
import { createLogger } from '../../src/shared/logging.ts';
import { declareTopology } from '../../src/shared/topology.ts';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  insertAccounts,
  ledgerRows,
  onCleanUp,
  recordDirectly,
  startWorkerHere,
  subscribe,
  until,
} from '../support/harness.ts';

let database: Database;
let broker: Broker;
let channel: Channel;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
  channel = await (await broker.connect()).createChannel();
  await declareTopology(channel, broker.topology);
  await insertAccounts(database, 'a');
});
afterEach(cleanUp);

/** Between the relay and the broker. Holding, it passes on nothing that the broker says. */
async function startHoldingProxy(target: string) {
  const { hostname, port } = new URL(target);
  const sockets = new Set<net.Socket>();
  let isHolding = false;
  const server = net.createServer((client) => {
    const upstream = net.connect(Number(port || 5672), hostname);
    client.on('data', (bytes) => upstream.write(bytes));
    upstream.on('data', (bytes) => isHolding || client.write(bytes));
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(one);
      one.on('error', () => {});
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = () => {
    for (const socket of sockets) socket.destroy();
    isHolding = false;
  };
  onCleanUp(async () => {
    cut();
    server.close();
  });
  const url = new URL(target);
  url.host = `127.0.0.1:${(server.address() as net.AddressInfo).port}`;
  return { url: url.href, cut, hold: () => (isHolding = true) };
}

function relayTo(amqpUrl: string, more: { confirmTimeoutMs?: number } = {}) {
  const settings = readApiSettings({ DATABASE_URL: database.url, AMQP_URL: amqpUrl, RELAY_REPUBLISH_MS: '500' });
  const relay = startRelay({ ...settings, topology: broker.topology, log: createLogger('test', 'silent'), ...more });
  onCleanUp(relay.stop);
  return relay;
}

async function bindFullQueue(pattern: string): Promise<string> {
  const limits = { 'x-max-length': 1, 'x-overflow': 'reject-publish' };
  const { queue } = await channel.assertQueue('', { exclusive: true, arguments: limits });
  await channel.bindQueue(queue, broker.topology.eventsExchange, pattern);
  channel.sendToQueue(queue, Buffer.from('in the way'));
  await until('it is full', async () => (await channel.checkQueue(queue)).messageCount === 1);
  return queue;
}

const versionsIn = (received: Awaited<ReturnType<typeof subscribe>>) =>
  new Set(received.map(({ body }) => body.data.version));

it('loses nothing when its connection ends while it finds out whether anybody is bound', async () => {
  const proxy = await startHoldingProxy(broker.url);
  await applyDirectly(database.pool, 'a', 1, 200);
  const relay = relayTo(proxy.url);
  await until('nobody is bound', () => relay.state().subscribers.unrouted >= 201);
  const received = await subscribe(broker);
  proxy.hold();
  await applyDirectly(database.pool, 'a', 1, 500);
  await until('the first is in the queue', () => received.length >= 1);
  proxy.cut();
  await until('all arrived', () => versionsIn(received).size === 500);
});

it('gives up a connection on which the confirm of a single event never comes', async () => {
  const proxy = await startHoldingProxy(broker.url);
  const relay = relayTo(proxy.url, { confirmTimeoutMs: 1000 });
  await until('the opening is confirmed', () => relay.state().ledger.confirmed >= 1);
  proxy.hold();
  await applyDirectly(database.pool, 'a', 1);
  await until('it connects again', () => relay.state().ledger.broker === 'disconnected');
  proxy.cut();
  await until('it is confirmed', () => relay.state().ledger.confirmed >= 2);
});

it('is not ended by a connection to RabbitMQ that is cut while the queue is asked for', async () => {
  const proxy = await startHoldingProxy(broker.url);
  const relay = relayTo(proxy.url);
  await applyDirectly(database.pool, 'a', 1, 50);
  await until('all are confirmed', () => relay.state().ledger.confirmed >= 51);
  let wasInactive = false;
  for (let cuts = 0; cuts < 3; cuts += 1) {
    await until('it is linked', () => relay.state().ledger.broker === 'connected');
    await delay(1000); // no worker is there, so it looks for what is lost twice a second
    proxy.hold();
    await delay(700);
    proxy.cut();
    wasInactive ||= !relay.state().active;
  }
  await until('it is linked', () => relay.state().ledger.broker === 'connected');
  expect(wasInactive).toBe(false);
});

it('notes a queue that is put aside again after it was forgotten', async () => {
  const queue = { name: 'q', routingKeys: ['#'], bindings: [] };
  await noteQueuePutAside(database.pool, queue, 1);
  const client = await openClient(database.url, 'test');
  onCleanUp(() => client.end());
  await forget(client, 'q');
  await noteQueuePutAside(database.pool, queue, 1);
  expect(await readPutAside(client, 'q')).toHaveLength(1);
});

it('takes away a binding that has arguments', async () => {
  const { queue: name } = await channel.assertQueue('', { durable: false });
  onCleanUp(() => channel.deleteQueue(name));
  const binding = { routingKey: '#', arguments: { owner: 'me' } };
  await channel.bindQueue(name, broker.topology.eventsExchange, '#', binding.arguments);
  await unbind(broker.url, broker.topology.eventsExchange, { name, routingKeys: ['#'], bindings: [binding] });
  channel.publish(broker.topology.eventsExchange, 'balance.credited', Buffer.from('x'), { mandatory: true });
  await new Promise((resolve) => channel.once('return', resolve));
});

/**
 * The sequence was left behind, after versions up to 110 had been recorded: 111 to 160 come in
 * below what was noted.
 */
async function leaveSequenceBehind(isLedgerBehind: boolean): Promise<void> {
  const note = (track: string) =>
    database.pool.query('INSERT INTO relay_progress (track, position) SELECT $1, max(position) FROM outbox', [track]);
  await applyDirectly(database.pool, 'a', 1, 100);
  await recordDirectly(database, 'a', 0, 100);
  await note('ledger');
  await database.pool.query(`SELECT setval('outbox_position', 1000000)`);
  await applyDirectly(database.pool, 'a', 1, 10);
  if (!isLedgerBehind) {
    await recordDirectly(database, 'a', 101, 110);
    await note('ledger');
  }
  for (const track of ['published', 'subscribers']) await note(track);
  await database.pool.query(`SELECT setval('outbox_position', 200)`);
  await applyDirectly(database.pool, 'a', 1, 50);
}

const BELOW = Array.from({ length: 50 }, (_, index) => 111 + index);

it('still owes subscribers after a restart what it had found below the floor', async () => {
  await leaveSequenceBehind(false);
  const received = await subscribe(broker);
  const full = await bindFullQueue('#');
  await startWorkerHere(database, broker);
  const first = relayTo(broker.url);
  await until('the ledger has all', async () => (await ledgerRows(database)) === 161);
  await until('something was refused', () => first.state().subscribers.rejected > 0);
  await first.stop();
  await channel.deleteQueue(full);
  relayTo(broker.url);
  await until('all arrived', () => BELOW.every((version) => versionsIn(received).has(version)));
});

it('publishes to subscribers what came in between what was noted for the ledger and for them', async () => {
  await leaveSequenceBehind(true);
  const received = await subscribe(broker);
  await startWorkerHere(database, broker);
  relayTo(broker.url);
  await until('the ledger has all', async () => (await ledgerRows(database)) === 161);
  await until('all arrived', () => BELOW.every((version) => versionsIn(received).has(version)));
});

it('continues beside a queue that refuses every other event', async () => {
  await bindFullQueue('balance.debited');
  const received = await subscribe(broker);
  await startWorkerHere(database, broker);
  relayTo(broker.url);
  const CHANGES = 22_000; // more ranges are refused than are kept apart
  for (let done = 0; done < CHANGES; done += 1000) {
    await database.pool.query(
      `SELECT apply_changes(ARRAY['a'], array_fill(1, ARRAY[1000]),
         (SELECT array_agg(CASE WHEN i % 2 = 0 THEN -1 ELSE 2 END ORDER BY i)::bigint[] FROM generate_series(1, 1000) i)${', NULL'.repeat(22)})`,
    );
  }
  await drained(database);
  await until('the neighbour has all', () => versionsIn(received).size === CHANGES + 1);
});

it('does not publish again at a restart what waits for the worker', async () => {
  await applyDirectly(database.pool, 'a', 1, 5000);
  const messages: number[] = [];
  for (let start = 0; start < 3; start += 1) {
    const relay = relayTo(broker.url);
    await until('it is active', () => relay.state().active);
    await until('all are noted', async () => {
      const { rows } = await database.pool.query(
        `SELECT max(position) AS position FROM relay_progress WHERE track = 'published'`,
      );
      return rows[0].position >= 5001;
    });
    await relay.stop();
    messages.push((await channel.checkQueue(broker.topology.ledgerQueue)).messageCount);
  }
  expect(messages).toEqual([messages[0], messages[0], messages[0]]);
});
