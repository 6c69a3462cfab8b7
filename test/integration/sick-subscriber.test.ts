// A queue of a subscriber takes nothing: the leader of a quorum queue hangs, as a node that swaps
// or a stuck disk makes it, or the queue is full and refuses. Neither holds up the ledger; the
// other subscribers wait until it is put aside.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel } from 'amqplib';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { APPLY, parametersOf } from '../../src/api/updates/batch.ts';
import { type DisposableBroker, startDisposableBroker } from '../support/backends.ts';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  insertAccounts,
  makeChange,
  onCleanUp,
  pendingChanges,
  send,
  startApiHere,
  startWorkerHere,
  subscribe,
  until,
  updateOperation,
} from '../support/harness.ts';

/** A node takes up to 10 s to start, and its management a little longer. */
const START_MS = 180_000;
const QUEUE = 'sick';
const ASIDE_MS = 5000;
/** The least that the setting allows. */
const PATIENCE_BYTES_MIN = 16 * 1024 * 1024;

let server: DisposableBroker;
let broker: Broker;
let channel: Channel;
let database: Database;

beforeAll(async () => {
  server = await startDisposableBroker({ management: true });
}, START_MS);
afterAll(() => server.stop());

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker(server.url);
  channel = await (await broker.connect()).createChannel();
  await channel.assertExchange(broker.topology.eventsExchange, 'topic', { durable: true });
  await insertAccounts(database, 'a');
});
afterEach(async () => {
  await setSuspended(false);
  await cleanUp();
});

/** The process in which the leader of the quorum queue runs. */
async function setSuspended(isSuspended: boolean): Promise<void> {
  const does = isSuspended ? 'suspend' : 'resume';
  await server.control('eval', `case whereis('%2F_${QUEUE}') of undefined -> ok; Pid -> sys:${does}(Pid) end.`);
}

async function bindQuorumQueue(): Promise<void> {
  await channel.assertQueue(QUEUE, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.bindQueue(QUEUE, broker.topology.eventsExchange, '#');
}

async function bindFullQueue(): Promise<void> {
  await channel.assertQueue(QUEUE, { durable: true, arguments: { 'x-max-length': 1, 'x-overflow': 'reject-publish' } });
  await channel.bindQueue(QUEUE, broker.topology.eventsExchange, 'balance.*');
  channel.sendToQueue(QUEUE, Buffer.from('in the way'));
}

const stateOf = async (url: string) => (await send(url, 'GET', '/readyz')).body.relay;

/** Fills the outbox with at least so many bytes. */
async function applyLarge(bytes: number): Promise<void> {
  const reference = '\u{1f600}'.repeat(255); // about 1 kB: neither compressed nor stored elsewhere
  for (let left = bytes; left > 0; left -= 1000 * 1000) {
    const updates = Array.from({ length: 1000 }, () => updateOperation('a', 1, { reference }));
    await database.pool.query({ ...APPLY, values: parametersOf(updates) });
  }
}

async function applySome(count: number): Promise<void> {
  for (let done = 0; done < count; done += 10) await applyDirectly(database.pool, 'a', 1, 10);
}

it.each([
  ['is silent', bindQuorumQueue, () => setSuspended(true)],
  ['refuses', bindFullQueue, async () => {}],
] as const)(
  'a queue that %s is named and put aside, and the others go on',
  { timeout: START_MS },
  async (problem, bind, begin) => {
    await bind();
    const neighbour = await subscribe(broker);
    const settings = { AMQP_MANAGEMENT_URL: server.managementUrl as string, SUBSCRIBER_ASIDE_MS: String(ASIDE_MS) };
    const { url } = await startApiHere(database, broker, settings);
    await startWorkerHere(database, broker);
    await applySome(10);
    await until('all is well', () => neighbour.length >= 11);
    await drained(database);
    await begin();
    await applySome(1000);
    // The ledger notices nothing.
    await until('the ledger has all of it', async () => (await pendingChanges(database)) === 0, 5000);
    await until('the queue is named', async () => (await stateOf(url)).subscribers.waiting?.queues.length > 0);
    const { waiting } = (await stateOf(url)).subscribers;
    expect(waiting.queues).toEqual([`${QUEUE} ${problem}`]);
    expect(waiting.lastPosition - waiting.firstPosition).toBeGreaterThan(990);
    await until('it is put aside', async () => (await stateOf(url)).subscribers.putAside === 1);
    const seen = () => new Set(neighbour.map(({ messageId }) => messageId)).size;
    await until('its neighbour has all of it', () => seen() === 1011, 10_000);
    const { rows } = await database.pool.query('SELECT queue, routing_keys, last_position, delivered_at FROM missed');
    const keys = problem === 'refuses' ? ['balance.*'] : ['#'];
    expect(rows).toEqual([{ queue: QUEUE, routing_keys: keys, last_position: null, delivered_at: null }]);
    await applySome(10);
    await until('its neighbour has what is new', () => seen() === 1021, 2000);
    await until('nobody waits', async () => (await stateOf(url)).subscribers.waiting === undefined);
    expect(await drained(database)).toMatchObject({ ledgerEntries: 1021, offendingAccounts: 0 });
    await setSuspended(false);
    await channel.deleteQueue(QUEUE);
  },
);

it('events are passed over for the space that subscribers keep, not for what a backup keeps', {
  timeout: START_MS,
}, async () => {
  const backup = await database.pool.connect();
  await backup.query('BEGIN; LOCK TABLE outbox IN ACCESS SHARE MODE');
  onCleanUp(async () => backup.release(true));
  const { url } = await startApiHere(database, broker, { SUBSCRIBER_PATIENCE_BYTES: String(PATIENCE_BYTES_MIN) });
  await startWorkerHere(database, broker);
  await applyLarge(PATIENCE_BYTES_MIN);
  await drained(database);
  const { rows } = await database.pool.query(
    `SELECT pg_relation_size('outbox_even') + pg_relation_size('outbox_odd') AS bytes, max(position) AS last FROM outbox`,
  );
  const [{ bytes, last }] = rows;
  expect(bytes).toBeGreaterThan(PATIENCE_BYTES_MIN);
  const subscribersHave = `SELECT max(position) AS position FROM relay_progress WHERE track = 'subscribers'`;
  await until('subscribers have it', async () => (await database.pool.query(subscribersHave)).rows[0].position >= last);

  await bindFullQueue();
  await applySome(10);
  await until('subscribers are seen to wait', async () => (await stateOf(url)).subscribers.waiting !== undefined);
  await delay(2000); // some more looks
  expect((await stateOf(url)).subscribers.passedOver).toBe(0);

  await applyLarge(PATIENCE_BYTES_MIN);
  await until('what is too much is passed over', async () => (await stateOf(url)).subscribers.passedOver > 0);
  const missed = await database.pool.query('SELECT min(first_position) AS first FROM missed');
  expect(missed.rows[0].first).toBeGreaterThan(last);
  await channel.deleteQueue(QUEUE);
});

it('a queue that is silent and cannot be named leaves the ledger alone, and is over when it answers', {
  timeout: START_MS,
}, async () => {
  await bindQuorumQueue();
  const neighbour = await subscribe(broker);
  const { url } = await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  await drained(database);
  await setSuspended(true);
  await applySome(500);
  await until('the ledger has all of it', async () => (await pendingChanges(database)) === 0, 5000);
  await until('subscribers are seen to wait', async () => (await stateOf(url)).subscribers.waiting !== undefined);
  expect((await stateOf(url)).subscribers.waiting).toMatchObject({ queues: [] });
  await setSuspended(false);
  await until('the neighbour has all', () => new Set(neighbour.map(({ messageId }) => messageId)).size === 501);
  await until('nobody waits', async () => (await stateOf(url)).subscribers.waiting === undefined);
  await until('so has the queue', async () => (await channel.checkQueue(QUEUE)).messageCount >= 501);
  expect((await stateOf(url)).subscribers.passedOver).toBe(0);
  await channel.deleteQueue(QUEUE);
});

it('a queue that answers while the process that looks is frozen is not taken for a silent one', {
  timeout: START_MS,
}, async () => {
  await bindQuorumQueue();
  await setSuspended(true);
  const queue = { name: QUEUE, routingKeys: ['#'], bindings: [{ routingKey: '#', arguments: {} }] };
  const row = { ...makeChange({ accountId: 'a', version: 1, amount: 1, balance: 1 }), position: 1 };
  const script = `
    const { findSickQueues } = await import(${JSON.stringify(import.meta.resolve('../../src/api/relay/sick-queues.ts'))});
    const row = ${JSON.stringify(row)};
    const asked = [${JSON.stringify(queue)}];
    const signal = new AbortController().signal;
    console.log('looking');
    const look = findSickQueues(${JSON.stringify(broker.url)}, asked, { ...row, createdAt: new Date(row.createdAt) }, signal);
    console.log(JSON.stringify(await look));`;
  const looking = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onCleanUp(async () => looking.kill('SIGKILL'));
  let found = '';
  looking.stdout.on('data', (chunk) => (found += chunk));
  const ended = once(looking, 'close');
  const messages = async () => (await channel.checkQueue(QUEUE)).messageCount;
  await until('it looks', () => found !== '');
  await delay(1500); // it has published, and waits
  looking.kill('SIGSTOP');
  await setSuspended(false);
  await until('the queue has it', async () => (await messages()) === 1);
  await delay(3000); // longer than it would wait
  looking.kill('SIGCONT');
  await ended;
  expect(found).toBe('looking\n[]\n');
  await channel.deleteQueue(QUEUE);
});
