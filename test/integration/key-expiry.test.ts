// Idempotency keys go by age: not before their time, and without anybody noticing.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cleanUp, createDatabase, type Database, insertAccounts, until } from '../harness.ts';

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
  await insertAccounts(database, 'a', 'b');
});
afterAll(cleanUp);

async function applyUnder(...keys: string[]): Promise<boolean[]> {
  const { rows } = await database.pool.query(
    `SELECT replayed FROM apply_balance_updates(array_fill('a'::text, ARRAY[$2::int]), array_fill(1::bigint, ARRAY[$2::int]),
       array_fill(NULL::text, ARRAY[$2::int]), $1, array_fill(NULL::text, ARRAY[$2::int]), array_fill(NULL::text, ARRAY[$2::int]), now())
     ORDER BY item`,
    [keys, keys.length],
  );
  return rows.map((row) => row.replayed);
}

const expire = async (kept: string): Promise<boolean> =>
  (await database.pool.query('SELECT expire_idempotency_keys($1) AS expired', [kept])).rows[0].expired;

it('keeps a key for its time and for one more, and gives the space back', async () => {
  expect(await applyUnder('one')).toEqual([false]);
  expect(await applyUnder('two', 'three')).toEqual([false, false]);
  expect(await expire('1 hour'), 'too early').toBe(false);

  expect(await expire('0')).toBe(true);
  expect(await applyUnder('one'), 'alone').toEqual([true]);
  expect(await applyUnder('three', 'four', 'two'), 'in a batch').toEqual([true, false, true]);

  expect(await expire('0')).toBe(true);
  expect(await applyUnder('four', 'one'), 'written later, kept longer').toEqual([true, false]);
  expect(await expire('0')).toBe(true);
  expect(await expire('0')).toBe(true);
  const { rows } = await database.pool.query(
    `SELECT pg_relation_size('request_even') + pg_relation_size('request_odd') AS bytes`,
  );
  expect(rows[0].bytes).toBe(0);
});

it('waits while another session holds a lock, without an effect', async () => {
  const backup = await database.pool.connect();
  try {
    await backup.query('BEGIN');
    await backup.query('SELECT FROM request');
    await expect(expire('0')).rejects.toMatchObject({ code: '55P03' });
  } finally {
    await backup.query('ROLLBACK');
    backup.release();
  }
  // The refusal arrives a moment before its transaction lets go.
  await until('the keys expire', () => expire('0'));
});
