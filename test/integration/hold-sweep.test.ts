// The sweep that writes the expiry of holds on quiet accounts: one account with many of them, or
// one that a session keeps locked, holds up neither the others nor its own debits.
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, expect, it } from 'vitest';
import {
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  insertAccounts,
  send,
  startApiHere,
  until,
  verified,
} from '../support/harness.ts';

afterAll(cleanUp);

/**
 * Places holds of 1 under one lock, 1,000 in a statement, as a lane does; all fall due at the same
 * moment.
 */
async function placeHolds({ pool }: Database, accountId: string, count: number, seconds: number): Promise<void> {
  await pool.query(
    `SELECT apply_changes(ARRAY[$1], ones, ones::bigint[], NULL, NULL, array_fill(NULL::text, ARRAY[$2::integer]), NULL, NULL, NULL, NULL,
              array_fill(decode(repeat('00', 16), 'hex'), ARRAY[$2]), NULL, NULL,
              array_fill('hold'::text, ARRAY[$2]), numbers || $2 + 1, ones, numbers, array_fill($3::integer, ARRAY[$2]),
              ones, ids, NULL, NULL, NULL, NULL, NULL)
     FROM (
       SELECT array_agg(1) AS ones, array_agg(number) AS numbers, array_agg('h' || round || '-' || number) AS ids
       FROM generate_series(1, $4) AS round CROSS JOIN generate_series(1, $2) AS number GROUP BY round
     ) batch`,
    [accountId, 1000, seconds, count / 1000],
  );
}

const activeHolds = async ({ pool }: Database, accountId: string): Promise<number> => {
  const text = `SELECT count(*)::integer AS holds FROM hold WHERE account_id = $1 AND status = 'active'`;
  return (await pool.query(text, [accountId])).rows[0].holds;
};

it('continues with other accounts while one with many due holds is locked', async () => {
  const database = await createDatabase();
  const { url } = await startApiHere(database, createBroker(), { RELAY: 'off' });
  await insertAccounts(database, 'locked', 'quiet');
  for (const accountId of ['locked', 'quiet']) {
    await send(url, 'POST', '/v1/balance-updates', { accountId, amount: 2000 });
  }
  const blocker = await database.pool.connect();
  try {
    await placeHolds(database, 'locked', 2000, 1);
    await blocker.query(`BEGIN; SELECT FROM account WHERE account_id = 'locked' FOR UPDATE`);
    const hold = { holdId: 'h', amount: 5, expiresInSeconds: 1 };
    expect((await send(url, 'POST', '/v1/accounts/quiet/holds', hold)).status).toBe(201);
    await until('its hold has expired', async () => (await activeHolds(database, 'quiet')) === 0, 15_000);
    expect(await activeHolds(database, 'locked')).toBe(2000);
    await blocker.query('COMMIT');
    await until('the others have', async () => (await activeHolds(database, 'locked')) === 0, 15_000);
    expect((await verified(database)).offenders).toEqual([]);
  } finally {
    blocker.release();
  }
});

it('expires the holds of all other accounts in one go, though many older ones are of a locked account', async () => {
  const database = await createDatabase();
  const others = ['other-1', 'other-2', 'other-3', 'other-4', 'other-5'];
  await insertAccounts(database, 'locked', ...others);
  const place = (accountId: string, count: number, since: string) =>
    database.pool.query(
      `WITH placed AS (
         INSERT INTO hold (account_id, hold_id, amount, remaining, expires_at, client, fingerprint, created_at, updated_at)
         SELECT $1, 'h' || number, 1, 1, now() - $3::interval, '', decode(repeat('00', 16), 'hex'), now(), now()
         FROM generate_series(1, $2::integer) AS number
       )
       UPDATE account SET held = $2, overdraft_limit = $2 WHERE account_id = $1`,
      [accountId, count, since],
    );
  await place('locked', 99, '1 hour'); // one less than a look finds, so that it finds one that is not locked
  for (const accountId of others) await place(accountId, 1, '1 second');
  const blocker = await database.pool.connect();
  try {
    await blocker.query(`BEGIN; SELECT FROM account WHERE account_id = 'locked' FOR UPDATE`);
    const { rows } = await database.pool.query('SELECT sweep_due_holds(100) AS expired');
    expect(rows).toEqual([{ expired: others.length }]);
  } finally {
    await blocker.query('ROLLBACK');
    blocker.release();
  }
});

it('leaves an account usable while 10,000 of its holds fall due at once', async () => {
  const database = await createDatabase();
  const { url } = await startApiHere(database, createBroker(), { RELAY: 'off' });
  await insertAccounts(database, 'crowded');
  await send(url, 'POST', '/v1/balance-updates', { accountId: 'crowded', amount: 20_000 });
  await placeHolds(database, 'crowded', 10_000, 2);
  const latenciesMs: number[] = [];
  let over = false;
  const debits = Array.from({ length: 4 }, async () => {
    while (!over) {
      const startedAtMs = performance.now();
      const { status } = await send(url, 'POST', '/v1/balance-updates', { accountId: 'crowded', amount: -1 });
      latenciesMs.push(performance.now() - startedAtMs);
      expect(status).toBe(200);
      await delay(10);
    }
  });
  await until('all have expired', async () => (await activeHolds(database, 'crowded')) === 0, 30_000);
  over = true;
  await Promise.all(debits);
  expect(Math.max(...latenciesMs)).toBeLessThan(6000);
  const { body } = await send(url, 'GET', '/v1/accounts/crowded');
  expect(body).toMatchObject({ balance: 20_000 - latenciesMs.length, held: 0 });
  expect((await verified(database)).offenders).toEqual([]);
});
