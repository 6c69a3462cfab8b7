// Messages that no one of ours wrote, as large and as many as RabbitMQ takes: every reader of
// events refuses them unread, keeps its memory, and goes on.
import { readFileSync } from 'node:fs';
import type { Channel, ConfirmChannel } from 'amqplib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readWorkerSettings } from '../../src/shared/config.ts';
import { encodeEvent, encodeEventBatch } from '../../src/shared/events.ts';
import { MESSAGE_BYTES_MAX, MESSAGE_EVENTS_MAX } from '../../src/shared/message-bounds.ts';
import { declareTopology } from '../../src/shared/topology.ts';
import { watch } from '../support/console-watcher.ts';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  environmentOf,
  insertAccounts,
  ledgerRows,
  makeChange,
  outboxChanges,
  type Spawned,
  send,
  spawnProcess,
  startWorkerHere,
  until,
} from '../support/harness.ts';

const MB = 1_000_000;
/** What a process of ours needs, and little beside: a container of 512 MB would give it no more. */
const LITTLE_MEMORY = { NODE_OPTIONS: '--max-old-space-size=160' };
/** Parsed, 15 MB of it take 280 MB of heap. */
const POISON = Buffer.from(`[${'{},'.repeat(5 * MB - 1)}{}]`);

let database: Database;
let broker: Broker;
let channel: ConfirmChannel;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
  channel = await (await broker.connect()).createConfirmChannel();
  await declareTopology(channel as unknown as Channel, broker.topology);
  await insertAccounts(database, 'a');
});
afterEach(cleanUp);

const toWorker = (body: Buffer) => channel.sendToQueue(broker.topology.ledgerQueue, body, { messageId: 'poison' });
const deadLetters = async () => (await channel.checkQueue(broker.topology.deadLetters)).messageCount;
const newestEvent = async () => encodeEvent((await outboxChanges(database, 'a')).at(-1) as never);

function isAlive({ child }: Spawned): boolean {
  return child.exitCode === null && child.signalCode === null;
}

/** MB of memory that the process had at most. */
function memoryPeak({ child }: Spawned): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) / 1000;
}

it('a worker with little memory outlives messages of 15 MB, and records what is true after them', async () => {
  const worker = await spawnProcess('worker', environmentOf(database, broker, LITTLE_MEMORY));
  for (let count = 0; count < 3; count += 1) toWorker(POISON);
  await channel.waitForConfirms();
  await applyDirectly(database.pool, 'a', 5);
  toWorker(await newestEvent());
  await until('it is recorded', async () => !isAlive(worker) || (await ledgerRows(database)) === 1);
  expect(isAlive(worker)).toBe(true);
  await until('they are dead letters', async () => (await deadLetters()) === 3);
});

it('an API whose console is open outlives one too, and shows what comes after it', async () => {
  const api = await spawnProcess('api', environmentOf(database, broker, LITTLE_MEMORY));
  const url = api.url();
  const watcher = await watch(url, {});
  await until('it sees events', () => watcher.live.at(-1)?.broker === 'connected');
  channel.publish(broker.topology.eventsExchange, 'balance.credited', POISON);
  await channel.waitForConfirms();
  await createAccount(url, 'seen');
  await until(
    'the event is seen',
    () => !isAlive(api) || watcher.events.some(({ subject }) => subject === 'seen'),
    120_000,
  );
  expect(isAlive(api)).toBe(true);
});

it('one message of 61,361 events is refused unread, and any number of forgeries is three lines of log for each batch', async () => {
  const worker = await spawnProcess('worker', environmentOf(database, broker, { HEALTH_PORT: '0' }));
  const counts = async () => (await send(worker.url(), 'GET', '/readyz')).body.counts;
  const forgery = (version: number) => makeChange({ accountId: 'a', version });
  const before = worker.output().length;

  toWorker(encodeEventBatch(Array.from({ length: 61_361 }, (_, version) => forgery(version + 1))));
  await until('it is refused', async () => (await counts()).malformed === 1);
  expect(await counts()).toMatchObject({ forged: 0 });

  const messages = 100;
  for (let count = 0; count < messages; count += 1) {
    const first = 1 + count * MESSAGE_EVENTS_MAX;
    toWorker(encodeEventBatch(Array.from({ length: MESSAGE_EVENTS_MAX }, (_, index) => forgery(first + index))));
  }
  for (let count = 0; count < messages; count += 1) toWorker(Buffer.from('no event'));
  await until('they are refused', async () => (await counts()).forged === messages * MESSAGE_EVENTS_MAX);
  await until('these too', async () => (await counts()).malformed === 1 + messages);
  await until('all are dead letters', async () => (await deadLetters()) === 1 + 2 * messages);
  const log = worker.output().slice(before);
  expect(log).toContain('dead-lettered events that match no accepted change');
  expect(log).toContain('dead-lettered malformed messages');
  expect(log.length).toBeLessThan(60_000);
  for (const line of log.trim().split('\n')) expect(line.length).toBeLessThan(1000);
});

it('a worker that waits for PostgreSQL holds no more of the largest messages than it has memory for', async () => {
  const blocker = await database.pool.connect();
  await blocker.query('BEGIN; LOCK TABLE ledger IN EXCLUSIVE MODE');
  await applyDirectly(database.pool, 'a', 5);
  toWorker(await newestEvent());
  const worker = await spawnProcess('worker', environmentOf(database, broker, LITTLE_MEMORY));
  await until('its batch waits', async () => {
    const { rows } = await database.pool.query(
      `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
    );
    return rows.length > 0;
  });
  const largest = Buffer.alloc(MESSAGE_BYTES_MAX, ' ');
  const messages = 200;
  const { prefetch } = readWorkerSettings(environmentOf(database, broker, LITTLE_MEMORY));
  for (let count = 0; count < messages; count += 1) toWorker(largest);
  await channel.waitForConfirms();
  // Its prefetch: the event and so many of these.
  await until('it has all that it may', async () => {
    const { messageCount } = await channel.checkQueue(broker.topology.ledgerQueue);
    return messageCount === 1 + messages - prefetch;
  });
  await blocker.query('COMMIT');
  blocker.release();
  await until('all are refused', async () => (await deadLetters()) === messages);
  expect(await ledgerRows(database)).toBe(1);
  expect(memoryPeak(worker)).toBeLessThan(500);
});

it('messages of the largest size that the relay writes are recorded', async () => {
  const metadata = `{"a":"${'\\u0001'.repeat(1023)}"}`;
  const changes = Array.from({ length: MESSAGE_EVENTS_MAX }, (_, index) =>
    makeChange({ accountId: 'large', version: index + 1, reference: '\uffff'.repeat(255), metadata }),
  );
  for (const change of changes) {
    await database.pool.query(
      `INSERT INTO outbox (account_id, version, epoch, previous_epoch, type, asset, amount, held_change, balance, held, created_at, reference, metadata)
       VALUES ($1, $2, 1, 1, $3, 'UNIT', 1, 0, $2, 0, $4, $5, $6)`,
      [change.accountId, change.version, change.type, change.createdAt, change.reference, change.metadata],
    );
  }
  const body = encodeEventBatch(changes);
  expect(body.length).toBeGreaterThan(700_000);
  toWorker(body);
  const { consumer } = await startWorkerHere(database, broker);
  await until('they are recorded', () => consumer.counts.recorded === MESSAGE_EVENTS_MAX);
  expect(await deadLetters()).toBe(0);
});
