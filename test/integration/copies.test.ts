// Databases that are copies of others, share a server with others, or are not as this release needs
// them.
import { afterAll, expect, it } from 'vitest';
import { openClient, openPool } from '../../src/shared/database.ts';
import { migrate } from '../../src/shared/migrations.ts';
import {
  applyDirectly,
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  insertAccounts,
  onCleanUp,
  send,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';

afterAll(cleanUp);

const newestOf = async ({ pool }: Database) =>
  (await pool.query('SELECT epoch, version FROM account ORDER BY version DESC LIMIT 1')).rows[0];

it('gives changes another epoch in a copy of the database, though the server is the same', async () => {
  const database = await createDatabase();
  await insertAccounts(database, 'a');
  await applyDirectly(database.pool, 'a', 5);
  const before = await newestOf(database);
  const name = `${new URL(database.url).pathname.slice(1)}_copy`;
  const url = new URL(database.url);
  const admin = await openClient(new URL('/postgres', url).href, 'test admin');
  onCleanUp(() => admin.end());
  // A template must have no sessions.
  await admin.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${url.pathname.slice(1)}'`,
  );
  await admin.query(`CREATE DATABASE ${name} TEMPLATE ${url.pathname.slice(1)}`);
  onCleanUp(() => admin.query(`DROP DATABASE ${name} WITH (FORCE)`));
  url.pathname = `/${name}`;
  const pool = openPool(url.href, 'test', 2, { access: 'any server' });
  onCleanUp(() => pool.end());
  await applyDirectly(pool, 'a', 7);
  expect(await newestOf({ url: url.href, pool })).toEqual({
    version: 2,
    epoch: expect.toSatisfy((e) => e > before.epoch),
  });
});

it('gives changes another epoch after a dump was restored, which makes another table', async () => {
  const database = await createDatabase();
  await insertAccounts(database, 'a');
  await applyDirectly(database.pool, 'a', 5);
  const before = await newestOf(database);
  // As pg_restore leaves it: a new table with the old rows.
  await database.pool.query(
    'CREATE TABLE restored (LIKE epoch INCLUDING ALL); INSERT INTO restored SELECT * FROM epoch',
  );
  await database.pool.query('DROP TABLE epoch; ALTER TABLE restored RENAME TO epoch');
  await applyDirectly(database.pool, 'a', 7);
  expect(await newestOf(database)).toEqual({ version: 2, epoch: expect.toSatisfy((e) => e > before.epoch) });
});

it('serves two systems in two schemas of one database, each with a relay of its own', async () => {
  const database = await createDatabase();
  await database.pool.query('CREATE SCHEMA second');
  const url = new URL(database.url);
  url.searchParams.set('options', '-c search_path=second');
  await migrate(url.href);
  const pool = openPool(url.href, 'test', 2, { access: 'any server' });
  onCleanUp(() => pool.end());
  for (const one of [database, { url: url.href, pool }]) {
    const broker = createBroker();
    const api = await startApiHere(one, broker);
    await startWorkerHere(one, broker);
    await createAccount(api.url, 'a', 5);
    await until('the ledger has it', async () => {
      const { body } = await send(api.url, 'GET', '/v1/accounts/a/entries');
      return body.ledgerVersion === 1;
    });
  }
});

it('is not ready where its functions or rights are missing', async () => {
  const database = await createDatabase();
  const { url } = await startApiHere(database, createBroker(), { RELAY: 'off' });
  expect(await send(url, 'GET', '/readyz')).toMatchObject({ status: 200, body: { database: 'ok' } });
  await database.pool.query('ALTER FUNCTION change_account RENAME TO gone');
  expect(await send(url, 'GET', '/readyz')).toMatchObject({ status: 503, body: { database: /run migrate/ } });
});
