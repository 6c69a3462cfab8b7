// The broker is down, comes back without its disk, or with a ledger queue that is of no use. One
// small test for each, beside the fault suite, which meets all of it by chance.
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { closeConnection, connect } from '../../src/shared/broker.ts';
import { declareTopology } from '../../src/shared/topology.ts';
import { type DisposableBroker, startDisposableBroker } from '../support/backends.ts';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  environmentOf,
  insertAccounts,
  ledgerRows,
  onCleanUp,
  pendingChanges,
  send,
  spawnProcess,
  startApiHere,
  startWorkerHere,
  until,
  verified,
} from '../support/harness.ts';

const HEAL_TIMEOUT_MS = 90_000;
/** A broker takes up to 10 s to come back, and some of these take it down several times. */
const TIMEOUT_MS = 400_000;
/** RabbitMQ notes where a queue is within half a second; killed before that, the queue answers nothing: see below. */
const SETTLE_MS = 1000;

let server: DisposableBroker;
let broker: Broker;

beforeAll(async () => {
  server = await startDisposableBroker();
  onCleanUp(() => server.stop());
});
afterAll(cleanUp);

async function system(): Promise<{ database: Database; url: string }> {
  const database = await createDatabase();
  broker = createBroker(server.url);
  const { url } = await startApiHere(database, broker);
  await insertAccounts(database, 'a');
  return { database, url };
}

it('accepts updates while the broker is down, and publishes them when it is back', async () => {
  const { database, url } = await system();
  await startWorkerHere(database, broker);
  await drained(database); // the opening
  await delay(SETTLE_MS);
  await server.kill();
  for (let count = 0; count < 20; count += 1) {
    const { status } = await send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
    expect(status).toBe(200);
  }
  expect((await send(url, 'GET', '/readyz')).status).toBe(200);
  expect(await verified(database)).toMatchObject({ pendingChanges: 20, offendingAccounts: 0 });
  await server.start();
  expect(await drained(database, HEAL_TIMEOUT_MS)).toMatchObject({ ledgerEntries: 21, offendingAccounts: 0 });
});

it('asks on another connection where the ledger queue refuses everything, less and less often', async () => {
  const database = await createDatabase();
  broker = createBroker(server.url);
  await insertAccounts(database, 'a');
  // RabbitMQ 3.10 refuses so on one channel when the leader of the queue was killed; a limit makes
  // it refuse on any.
  const policy = ['tiny', `^${broker.namespace}\\.ledger$`, '{"max-length": 1}', '--apply-to', 'queues'];
  await server.control('set_policy', ...policy);
  const api = await spawnProcess('api', environmentOf(database, broker, { LOG_LEVEL: 'warn' }));
  const refused = () =>
    api.lines('RabbitMQ session ended').filter(({ err }) => /refused everything for 500 ms/.test(err.message));
  let updates = 0;
  await until(
    'it has asked on four connections',
    async () => {
      await applyDirectly(database.pool, 'a', 1); // a full queue takes all that is in flight when it gets full
      updates += 1;
      return refused().length >= 4;
    },
    HEAL_TIMEOUT_MS,
  );
  const pauses = refused().map(({ pauseMs }) => pauseMs);
  expect(pauses[3]).toBeGreaterThan(pauses[0]);
  await server.control('clear_policy', 'tiny');
  await startWorkerHere(database, broker);
  const ledgerEntries = updates + 1;
  expect(await drained(database, HEAL_TIMEOUT_MS)).toMatchObject({ ledgerEntries, offendingAccounts: 0 });
});

it('heals when the broker lost its disk with confirmed events on it', async () => {
  const { database, url } = await system();
  for (let count = 0; count < 20; count += 1) await applyDirectly(database.pool, 'a', 1);
  await until('all are confirmed', async () => (await send(url, 'GET', '/readyz')).body.relay.ledger.confirmed >= 21);
  expect(await pendingChanges(database)).toBe(21);
  await server.restartEmpty();
  const worker = await startWorkerHere(database, broker);
  expect(await drained(database, HEAL_TIMEOUT_MS)).toMatchObject({ ledgerEntries: 21, offendingAccounts: 0 });
  expect(worker.consumer.counts.forged).toBe(0);
  expect(await ledgerRows(database)).toBe(21);
});

it('replaces a ledger queue that answers nothing after its broker was killed straight after declaring it', {
  timeout: TIMEOUT_MS,
}, async () => {
  const { database, url } = await system();
  await startWorkerHere(database, broker);
  await until('the queues are declared', async () => (await send(url, 'GET', '/readyz')).body.relay.active);
  await server.kill();
  await server.start();
  await send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
  expect(await drained(database, HEAL_TIMEOUT_MS)).toMatchObject({ ledgerEntries: 2, offendingAccounts: 0 });
});

it('replaces a ledger queue that throws out every consumer, as one can that was declared again', {
  timeout: TIMEOUT_MS,
}, async () => {
  const broker = createBroker(server.url);
  for (let round = 0; round < 2; round += 1) {
    const connection = await connect(server.url, 'test');
    const channel = await connection.createChannel();
    await channel.deleteQueue(broker.topology.ledgerQueue);
    await declareTopology(channel, broker.topology);
    await server.kill();
    await closeConnection(connection);
    await server.start();
  }
  const database = await createDatabase();
  await insertAccounts(database, 'a');
  await startWorkerHere(database, broker);
  await startApiHere(database, broker);
  await applyDirectly(database.pool, 'a', 1);
  expect(await drained(database, HEAL_TIMEOUT_MS)).toMatchObject({ ledgerEntries: 2, offendingAccounts: 0 });
});
