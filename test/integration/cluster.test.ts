// Several API processes behind one port: the same guarantees, one active relay, and a dead process
// is replaced.
import { once } from 'node:events';
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
  sendPatiently,
  spawnProcess,
  startWorkerHere,
  until,
} from '../support/harness.ts';

const PROCESSES = 3;

let database: Database;
let broker: Broker;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
});
afterEach(cleanUp);

async function startCluster() {
  const spawned = await spawnProcess('api', environmentOf(database, broker, { API_PROCESSES: String(PROCESSES) }));
  await until('each process is ready', async () => {
    // A connection each, so that they are spread over the processes.
    const asked = Array.from({ length: 4 * PROCESSES }, () =>
      send(spawned.url(), 'GET', '/readyz', undefined, { connection: 'close' }),
    );
    return (await Promise.all(asked)).every(({ status }) => status === 200);
  });
  return { ...spawned, started: () => spawned.lines('api started'), url: spawned.url() };
}

it('takes a hot account from every process, with one relay active, and loses nothing', async () => {
  const cluster = await startCluster();
  await startWorkerHere(database, broker);
  await createAccount(cluster.url, 'hot', 1000);
  const keys = Array.from({ length: 300 }, (_, index) => `k${index % 200}`); // 100 of them twice
  const answers = await Promise.all(
    keys.map((key) =>
      // A connection each, so that they are spread over the processes.
      sendPatiently(
        cluster.url,
        'POST',
        '/v1/balance-updates',
        { accountId: 'hot', amount: -1 },
        { 'idempotency-key': key, connection: 'close' },
      ),
    ),
  );
  expect(answers.filter(({ status }) => status !== 200).map(({ body }) => body)).toEqual([]);
  expect(new Set(answers.map((answer) => answer.body.version)).size).toBe(200);
  expect((await send(cluster.url, 'GET', '/v1/accounts/hot')).body).toMatchObject({ balance: 800, version: 201 });
  expect(await drained(database)).toMatchObject({ ledgerEntries: 202, offendingAccounts: 0 });
  expect(new Set(cluster.started().map((line) => line.pid)).size).toBe(PROCESSES);
  expect(cluster.lines('this relay is the active one')).toHaveLength(1);
});

it('replaces a process that dies, also the one with the active relay', async () => {
  const cluster = await startCluster();
  await startWorkerHere(database, broker);
  await createAccount(cluster.url, 'a');
  const active = () => cluster.lines('this relay is the active one');
  await until('one relay is active', () => active().length === 1);
  process.kill(active()[0]?.pid as number, 'SIGKILL');
  await until('another process listens', () => cluster.started().length === PROCESSES + 1);
  await until('another relay is active', () => active().length === 2);
  const update = await send(cluster.url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
  expect(update.status).toBe(200);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 2, offendingAccounts: 0 });
});

it('stops gracefully: answers what is in flight and exits with 0', async () => {
  const cluster = await startCluster();
  await createAccount(cluster.url, 'a');
  const updates = Array.from({ length: 100 }, () => ({ accountId: 'a', amount: 1 }));
  const underWay = Array.from({ length: 20 }, () => send(cluster.url, 'POST', '/v1/balance-updates/bulk', { updates }));
  await until('some are applied', async () => {
    const { rows } = await database.pool.query(`SELECT version FROM account WHERE account_id = 'a'`);
    return rows[0].version > 0;
  });
  const gone = once(cluster.child, 'exit');
  cluster.child.kill('SIGTERM');
  const answers = await Promise.allSettled(underWay);
  expect((await gone)[0]).toBe(0);
  const applied = answers.flatMap((answer) =>
    answer.status === 'fulfilled'
      ? answer.value.body.results.filter((one: { status: number }) => one.status === 200)
      : [],
  );
  const { rows } = await database.pool.query(`SELECT version FROM account WHERE account_id = 'a'`);
  expect(applied).toHaveLength(rows[0].version); // nothing was applied that was not answered
});
