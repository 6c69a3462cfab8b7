// What a lane answers when the database fails in the middle, and how it recovers.
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openClient } from '../../src/shared/database.ts';
import {
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  insertAccounts,
  onCleanUp,
  send,
  sendPatiently,
  startApiHere,
  until,
  verified,
} from '../support/harness.ts';

let database: Database;
let url: string;

beforeEach(async () => {
  database = await createDatabase();
  // One lane: everything meets in its batches. A short timeout: the tests wait for it.
  ({ url } = await startApiHere(database, createBroker(), { LANES: '1', STATEMENT_TIMEOUT_MS: '500', RELAY: 'off' }));
  await insertAccounts(database, 'a', 'b');
});
afterEach(cleanUp);

const update = (accountId: string, amount = 1, headers: Record<string, string> = {}) =>
  sendPatiently(url, 'POST', '/v1/balance-updates', { accountId, amount }, headers);

async function reopened(readOnly: boolean): Promise<void> {
  const name = new URL(database.url).pathname.slice(1);
  await database.pool.query(`ALTER DATABASE ${name} SET default_transaction_read_only = ${readOnly ? 'on' : 'off'}`);
  await database.pool.query(
    'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()',
  );
}

it('says that nothing changed when the server gave up on a statement, and continues', async () => {
  const holder = await openClient(database.url, 'test holder');
  onCleanUp(() => holder.end());
  await holder.query('BEGIN');
  await holder.query(`SELECT FROM account WHERE account_id = 'a' FOR UPDATE`);
  const refused = await update('a');
  expect(refused).toMatchObject({ status: 503, body: { code: 'unavailable' } });
  await holder.query('COMMIT');
  expect((await update('a')).body).toMatchObject({ balance: 1, version: 1 });
});

it('leaves a server that turned read-only, and finds the way back', async () => {
  await update('a');
  await reopened(true);
  await until('it meets the read-only server', async () => (await update('a')).body.code === 'unavailable');
  const client = await openClient(database.url, 'test', { access: 'any server' });
  onCleanUp(() => client.end());
  const name = new URL(database.url).pathname.slice(1);
  await client.query('SET default_transaction_read_only = off');
  await client.query(`ALTER DATABASE ${name} SET default_transaction_read_only = off`);
  // No connection is ended here: the lane itself must not stay with the one that refused.
  await until('updates are taken again', async () => (await update('a')).status === 200);
  expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
});

it('fails only the update that the database cannot take, not those in the same batch', async () => {
  await database.pool.query(`ALTER TABLE outbox ADD CONSTRAINT test_no_thirteen CHECK (amount <> 13)`);
  const amounts = Array.from({ length: 40 }, (_, index) => (index === 20 ? 13 : 1));
  const answers = await Promise.all(amounts.map((amount) => update('a', amount)));
  expect(answers.filter((answer) => answer.status === 200)).toHaveLength(39);
  expect(answers[20]).toMatchObject({ status: 500, body: { code: 'internal' } });
  expect((await send(url, 'GET', '/v1/accounts/a')).body).toMatchObject({ balance: 39, version: 39 });
});

it('gives single updates their turn while a client sends bulk without end', async () => {
  const updates = Array.from({ length: 1000 }, () => ({ accountId: 'b', amount: 1 }));
  let sending = true;
  const flood = Array.from({ length: 4 }, async () => {
    while (sending) await send(url, 'POST', '/v1/balance-updates/bulk', { updates });
  });
  await until('bulk updates are applied', async () => (await send(url, 'GET', '/v1/accounts/b')).body.version > 0);
  for (let count = 0; count < 20; count += 1) expect((await update('a')).status).toBe(200);
  sending = false;
  await Promise.all(flood);
  expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
});

it('keeps the batches of bulk small while single updates come, which wait for their end', async () => {
  const updates = Array.from({ length: 1000 }, () => ({ accountId: 'b', amount: 1 }));
  const bulk = () => send(url, 'POST', '/v1/balance-updates/bulk', { updates });
  const largest = async (afterVersion: number): Promise<number> => {
    // A batch is a transaction.
    const { rows } = await database.pool.query(
      `SELECT max(batch.legs)::integer AS legs FROM (
         SELECT count(*) AS legs FROM outbox WHERE account_id = 'b' AND version > $1 GROUP BY outbox.xmin
       ) batch`,
      [afterVersion],
    );
    return rows[0].legs;
  };
  await bulk();
  expect(await largest(0)).toBe(1000);
  await Promise.all([update('a'), bulk()]);
  expect(await largest(1000)).toBe(100);
});
