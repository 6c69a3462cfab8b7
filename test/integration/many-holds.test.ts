// A change of an account reads none of its holds that are not due, and none of other accounts:
// 10,000 active holds cost it nothing.
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { openClient } from '../../src/shared/database.ts';
import { applyDirectly, cleanUp, createDatabase, type Database } from '../support/harness.ts';

const HOLDS = 3000;

let database: Database;
let client: pg.Client;

beforeAll(async () => {
  database = await createDatabase();
  client = await openClient(database.url, 'test', { plans: 'fixed plans' });
  await client.query(`SELECT open_account(id, 'UNIT', 1000000, NULL, NULL, NULL) FROM unnest($1::text[]) AS id`, [
    ['busy', 'due', 'one'],
  ]);
});
afterAll(async () => {
  await client.end();
  await cleanUp();
});

beforeEach(async () => {
  await client.query('TRUNCATE hold');
  await placeHolds('busy', '1 hour');
});

async function placeHolds(accountId: string, expiresIn: string): Promise<void> {
  await client.query(
    `INSERT INTO hold (account_id, hold_id, amount, remaining, expires_at, client, fingerprint, created_at, updated_at)
     SELECT $1, 'h' || number, 1, 1, now() + $2::interval, '', decode(repeat('00', 16), 'hex'), now(), now()
     FROM generate_series(1, $3::integer) AS number`,
    [accountId, expiresIn, HOLDS],
  );
  await client.query('UPDATE account SET held = $2 WHERE account_id = $1', [accountId, HOLDS]);
}

/** Index entries of holds that `act` reads in this session. */
async function holdsReadBy(act: () => Promise<unknown>): Promise<number> {
  const read = async (): Promise<number> => {
    await client.query('SELECT pg_stat_force_next_flush()');
    const { rows } = await client.query(
      `SELECT sum(pg_stat_get_tuples_returned(indexrelid))::integer AS read FROM pg_index WHERE indrelid = 'hold'::regclass`,
    );
    return rows[0].read;
  };
  const before = await read();
  await act();
  return (await read()) - before;
}

it.each([
  ['a lone update', 1],
  ['a batch', 2],
])('%s of an account with many active holds reads none of them', async (_what, updates) => {
  expect(await holdsReadBy(() => applyDirectly(client, 'busy', -1, updates))).toBeLessThan(5);
});

it.each([
  ['a lone update', 1],
  ['a batch', 2],
])('%s reads none of the holds of another account that are due', async (_what, updates) => {
  await placeHolds('due', '-1 second');
  expect(await holdsReadBy(() => applyDirectly(client, 'busy', -1, updates))).toBeLessThan(5);
});

it('the sweep reads none that is not due', async () => {
  expect(await holdsReadBy(() => client.query('SELECT sweep_due_holds(1000)'))).toBeLessThan(5);
});
