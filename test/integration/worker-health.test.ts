// The worker's /readyz: true about a server that takes no changes, and no burden however many ask.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openClient } from '../../src/shared/database.ts';
import { encodeEvent } from '../../src/shared/events.ts';
import { type DisposablePostgres, startDisposablePostgres } from '../support/backends.ts';
import {
  applyDirectly,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  insertAccounts,
  ledgerRows,
  onCleanUp,
  outboxChanges,
  startWorkerHere,
  until,
} from '../support/harness.ts';

let server: DisposablePostgres;
let database: Database;

beforeAll(async () => {
  server = await startDisposablePostgres();
  onCleanUp(() => server.stop());
  database = await createDatabase({ serverUrl: server.url });
  await insertAccounts(database, 'a');
});
afterAll(cleanUp);

const HEALTH = { HEALTH_PORT: '0', HEALTH_HOST: '127.0.0.1' };

/** @param sessions of the worker, by application_name. */
async function connections(sessions: string): Promise<number> {
  const { rows } = await database.pool.query(
    'SELECT count(*) AS count FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE $1',
    [sessions],
  );
  return rows[0].count;
}

/** Statements that committed in the database, a second or two ago. */
async function commits(): Promise<number> {
  const { rows } = await database.pool.query(
    'SELECT xact_commit AS commits FROM pg_stat_database WHERE datname = current_database()',
  );
  return rows[0].commits;
}

async function setReadOnly(value: 'on' | 'off'): Promise<void> {
  const admin = await openClient(server.url, 'test admin', { access: 'any server' });
  await admin.query('SET default_transaction_read_only = off');
  await admin.query(`ALTER SYSTEM SET default_transaction_read_only = ${value}`);
  await admin.query('SELECT pg_reload_conf()');
  await admin.end();
}

it('asks the database over one connection of its own, and once for all who ask meanwhile', async () => {
  const worker = await startWorkerHere(database, createBroker(), HEALTH);
  const readyz = () => fetch(`http://127.0.0.1:${worker.healthPort}/readyz`);
  await until('it is ready', async () => (await readyz()).status === 200);
  const before = await commits();
  const asked = 4000;
  for (let left = asked; left > 0; left -= 200) {
    const answers = await Promise.all(Array.from({ length: 200 }, readyz));
    expect(answers.every(({ status }) => status === 200)).toBe(true);
    for (const answer of answers) await answer.arrayBuffer();
  }
  expect(await connections('%worker health')).toBe(1);
  expect(await connections('%worker')).toBeLessThanOrEqual(2);
  // PostgreSQL reports what a session did within a second after it, with its next statement.
  const untilMs = performance.now() + 3000;
  await until('it has reported', async () => {
    await readyz();
    return performance.now() > untilMs;
  });
  expect((await commits()) - before).toBeLessThan(asked / 2);
  await worker.stop();
});

it('is not ready on a server that takes no more changes, says why, keeps no connection to it, and continues when it does', async () => {
  const broker = createBroker();
  const worker = await startWorkerHere(database, broker, HEALTH);
  const readyz = async () => {
    const response = await fetch(`http://127.0.0.1:${worker.healthPort}/readyz`);
    const { database: said } = (await response.json()) as { database: string };
    return { status: response.status, database: said };
  };
  await until('it is ready', async () => (await readyz()).status === 200);
  await applyDirectly(database.pool, 'a', 5);
  await setReadOnly('on');
  onCleanUp(() => setReadOnly('off'));
  await until('it is not ready', async () => (await readyz()).status === 503);
  expect((await readyz()).database).toMatch(/read-only|default_transaction_read_only is on/);
  const channel = await (await broker.connect()).createChannel();
  const [change] = (await outboxChanges(database, 'a')).slice(-1);
  channel.sendToQueue(broker.topology.ledgerQueue, encodeEvent(change as never));
  await until('it tried to record it', () => worker.consumer.counts.retries > 0);
  await until('it keeps no connection', async () => (await connections('%worker%')) === 0);
  expect((await readyz()).database).toContain('default_transaction_read_only is on'); // said when a connection is made
  await setReadOnly('off');
  await until('it is ready again', async () => (await readyz()).status === 200);
  await until('it is recorded', async () => (await ledgerRows(database)) === 1);
  expect(worker.consumer.counts).toMatchObject({ recorded: 1, forged: 0, superseded: 0 });
});
