// /metrics says what happened: of the API, of several API processes together, and of the worker.
import { afterEach, beforeEach, expect, it } from 'vitest';
import {
  type Broker,
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  drained,
  environmentOf,
  send,
  spawnProcess,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { bytesOf, lockAccount, open, post, waitingBackends } from '../support/http-client.ts';
import { needing } from '../support/needing.ts';
import { hasPromtool, promtool } from '../support/promtool.ts';

let database: Database;
let broker: Broker;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
});
afterEach(cleanUp);

/** Values by name and labels, as they are in the text. */
async function scrape(url: string): Promise<Record<string, number>> {
  const response = await fetch(`${url}/metrics`);
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
  const lines = (await response.text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return Object.fromEntries(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]),
  );
}

const update = (url: string, accountId: string, amount: number, key?: string) =>
  send(url, 'POST', '/v1/balance-updates', { accountId, amount }, key ? { 'idempotency-key': key } : {});

it('counts requests, updates, batches and events', async () => {
  const { url } = await startApiHere(database, broker);
  const worker = await startWorkerHere(database, broker, { HEALTH_PORT: '0', HEALTH_HOST: '127.0.0.1' });
  await createAccount(url, 'a');
  for (const [amount, key] of [[5, 'k'], [5, 'k'], [3], [-100]] as [number, string?][])
    await update(url, 'a', amount, key);
  await update(url, 'nobody', 1);
  await send(url, 'GET', '/nowhere');
  await drained(database);
  await until('the relay knows that nothing is pending', async () => (await scrape(url)).outbox_pending_changes === 0);

  const api = await scrape(url);
  expect(api).toMatchObject({
    'balance_operations_total{operation="update",outcome="applied"}': 2,
    'balance_operations_total{operation="update",outcome="replayed"}': 1,
    'balance_operations_total{operation="update",outcome="insufficient_funds"}': 1,
    'balance_operations_total{operation="update",outcome="account_not_found"}': 1,
    balance_changes_waiting: 0,
    balance_batch_changes_sum: 5,
    balance_batch_changes_count: 5,
    balance_batch_wait_seconds_count: 5,
    balance_batch_duration_seconds_count: 5,
    'http_request_duration_seconds_count{method="POST",route="/v1/balance-updates",status="200"}': 3,
    'http_request_duration_seconds_count{method="POST",route="/v1/balance-updates",status="400"}': 1,
    'http_request_duration_seconds_count{method="GET",route="none",status="404"}': 1,
    relay_active: 1,
    'relay_in_flight_events{track="ledger"}': 0,
    'relay_events_total{track="ledger",outcome="confirmed"}': 3,
    'relay_events_total{track="subscribers",outcome="unrouted"}': 3,
    'rabbitmq_link{track="ledger",state="connected"}': 1,
    'rabbitmq_link{track="subscribers",state="connected"}': 1,
    'rabbitmq_link{track="ledger",state="disconnected"}': 0,
    subscribers_waiting_seconds: 0,
    outbox_oldest_age_seconds: 0,
  });
  expect(api.outbox_size_bytes).toBeGreaterThan(0);
  expect(api.nodejs_eventloop_lag_p99_seconds).toBeGreaterThan(0);

  const health = `http://127.0.0.1:${worker.healthPort}`;
  const channel = await (await broker.connect()).createChannel();
  channel.sendToQueue(broker.topology.ledgerQueue, Buffer.from('no event'));
  await until('the dead letter is counted', async () => (await scrape(health)).dead_letters === 1);
  expect(await scrape(health)).toMatchObject({
    'ledger_events_total{outcome="recorded"}': 3,
    'ledger_events_total{outcome="malformed"}': 1,
    'ledger_events_total{outcome="forged"}': 0,
    'ledger_events_total{outcome="superseded"}': 0,
    ledger_batch_entries_sum: 3,
    ledger_write_failures_total: 0,
    'rabbitmq_link{state="connected"}': 1,
  });
  expect((await scrape(health)).ledger_batch_duration_seconds_sum).toBeGreaterThan(0);
});

it('counts a request whose client left before its answer, and its update all the same', async () => {
  const { url } = await startApiHere(database, broker);
  await createAccount(url, 'a');
  const lock = await lockAccount(database, 'a');
  const { socket } = open(url);
  socket.write(bytesOf(post('/v1/balance-updates', { accountId: 'a', amount: 5 })));
  await until('it waits for the row', async () => (await waitingBackends(database)).length === 1);
  socket.destroy();
  const gone = 'http_request_duration_seconds_count{method="POST",route="/v1/balance-updates",status="499"}';
  await until('it is counted', async () => (await scrape(url))[gone] === 1);
  await lock.release();
  await until('it is applied', async () => (await send(url, 'GET', '/v1/accounts/a')).body.balance === 5);
  expect(await scrape(url)).toMatchObject({
    [gone]: 1,
    'balance_operations_total{operation="update",outcome="applied"}': 1,
  });
});

it('shows how far the ledger lags, and leaves out what cannot be read', async () => {
  const { url } = await startApiHere(database, broker); // and no worker
  await createAccount(url, 'a');
  await update(url, 'a', 1);
  await update(url, 'a', 1);
  await until('time passes', async () => ((await scrape(url)).outbox_oldest_age_seconds ?? 0) > 0.3);
  expect(await scrape(url)).toMatchObject({ outbox_pending_changes: 3 });
  await database.pool.query('ALTER TABLE outbox RENAME TO away');
  await until('it is left out', async () => (await scrape(url)).outbox_pending_changes === undefined);
  expect(await scrape(url)).toMatchObject({ 'balance_operations_total{operation="update",outcome="applied"}': 2 });
});

it('adds up what all processes behind the port count', async () => {
  const cluster = await spawnProcess('api', environmentOf(database, broker, { API_PROCESSES: '2', RELAY: 'off' }));
  const url = cluster.url();
  await createAccount(url, 'a');
  const { rows } = await database.pool.query('SELECT count(*) FROM account');
  expect(rows[0].count).toBe(1);
  // A connection each, so that they are spread over the processes.
  const body = { accountId: 'a', amount: 1 };
  await Promise.all(
    Array.from({ length: 40 }, () => send(url, 'POST', '/v1/balance-updates', body, { connection: 'close' })),
  );
  for (let asked = 0; asked < 4; asked += 1) {
    expect(await scrape(url)).toMatchObject({ 'balance_operations_total{operation="update",outcome="applied"}': 40 });
  }
});

needing('promtool: apt-get install prometheus', hasPromtool).it(
  'names and describes its metrics as promtool expects',
  async () => {
    const { url } = await startApiHere(database, broker);
    const worker = await startWorkerHere(database, broker, { HEALTH_PORT: '0', HEALTH_HOST: '127.0.0.1' });
    await createAccount(url, 'a', 5); // metrics with labels appear with their first value
    await drained(database);
    await until('the link of the worker is counted', async () => (await scrape(url)).outbox_pending_changes === 0);
    for (const place of [url, `http://127.0.0.1:${worker.healthPort}`]) {
      const text = await fetch(`${place}/metrics`).then((response) => response.text());
      expect(promtool(['check', 'metrics'], text), place).toEqual({ status: 0, output: '' });
    }
  },
);
