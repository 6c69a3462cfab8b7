// Idempotency keys go by age: not before their time, and without anybody noticing, under traffic
// too.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runCommand } from '../support/commands.ts';
import {
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  insertAccounts,
  send,
  startApiHere,
  until,
} from '../support/harness.ts';

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
  await insertAccounts(database, 'a', 'b');
});
afterAll(cleanUp);

async function applyUnder(...keys: string[]): Promise<boolean[]> {
  const { rows } = await database.pool.query(
    `SELECT replayed FROM apply_changes(ARRAY['a'], array_fill(1, ARRAY[$2::int]), array_fill(1::bigint, ARRAY[$2::int]),
       NULL, NULL, NULL, NULL, NULL, NULL, $1, array_fill('same'::bytea, ARRAY[$2::int])${', NULL'.repeat(14)})`,
    [keys, keys.length],
  );
  return rows[0].replayed ?? keys.map(() => false);
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
    `SELECT pg_relation_size('idempotency_key_even') + pg_relation_size('idempotency_key_odd') AS bytes`,
  );
  expect(rows[0].bytes).toBe(0);
});

it('keeps what a restored database has as long as if it were new, once `restored` has begun its epoch', async () => {
  expect(await applyUnder('survived')).toEqual([false]);
  expect(await expire('0')).toBe(true);
  await database.pool.query(`UPDATE idempotency_rotation SET since = since - interval '2 days'`); // a backup of that age
  expect(await runCommand(['restored'], { DATABASE_URL: database.url })).toMatchObject({ code: 0 });
  expect(await expire('1 day')).toBe(false);
  expect(await applyUnder('survived'), 'sent again').toEqual([true]);
});

it('waits while another session holds a lock, without an effect', async () => {
  const backup = await database.pool.connect();
  try {
    await backup.query('BEGIN');
    await backup.query('SELECT FROM idempotency_key');
    await expect(expire('0')).rejects.toMatchObject({ code: '55P03' });
  } finally {
    await backup.query('ROLLBACK');
    backup.release();
  }
  // The refusal arrives a moment before its transaction lets go.
  await until('the keys expire', () => expire('0'));
});

it('continues under traffic: none is lost before its time, nothing is doubled, nobody waits, and the tables stay small', async () => {
  const own = await createDatabase();
  await insertAccounts(own, 'hot');
  const KEPT_MS = 1000;
  const { url } = await startApiHere(own, createBroker(), { IDEMPOTENCY_KEYS_KEPT_MS: String(KEPT_MS), RELAY: 'off' });
  const since = async (): Promise<string> =>
    (await own.pool.query('SELECT since::text AS since FROM idempotency_rotation')).rows[0].since;
  const post = async (key: string) => {
    const startedMs = performance.now();
    const answer = await send(
      url,
      'POST',
      '/v1/balance-updates',
      { accountId: 'hot', amount: 1 },
      { 'idempotency-key': key },
    );
    return { ...answer, tookMs: performance.now() - startedMs };
  };

  let longestMs = 0;
  let applied = 0;
  let repeatedInTime = 0;
  const rotations = new Set<string>();
  const client = async () => {
    for (let turn = 0; rotations.size < 5 && turn < 20_000; turn += 1) {
      const key = randomUUID();
      const sentMs = performance.now();
      const first = await post(key);
      expect(first).toMatchObject({ status: 200 });
      expect(first.headers.has('idempotent-replayed')).toBe(false);
      applied += 1;
      if (turn % 5 === 0) await delay(KEPT_MS * 0.6); // some late, but in time
      const repeat = await post(key);
      longestMs = Math.max(longestMs, first.tookMs, repeat.tookMs);
      if (repeat.headers.get('idempotent-replayed') !== 'true' && performance.now() - sentMs >= KEPT_MS) {
        applied += 1; // a slow machine: it was too late
        continue;
      }
      expect(repeat.headers.get('idempotent-replayed')).toBe('true');
      expect(repeat.body).toEqual(first.body);
      repeatedInTime += 1;
      if (turn % 20 === 0) rotations.add(await since());
    }
  };
  await Promise.all(Array.from({ length: 8 }, client));

  expect(rotations.size).toBeGreaterThanOrEqual(5);
  expect(repeatedInTime).toBeGreaterThan(applied / 2);
  const { rows } = await own.pool.query(
    `SELECT version, balance, (SELECT count(*) FROM idempotency_key) AS keys FROM account`,
  );
  expect(rows[0]).toMatchObject({ version: applied, balance: applied });
  expect(rows[0].keys).toBeLessThan(applied * 0.8); // the oldest are gone
  expect(longestMs).toBeLessThan(10_000);
});
