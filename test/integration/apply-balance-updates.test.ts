// The SQL function against a plain model, and the races that a model cannot show.
import fc from 'fast-check';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openClient } from '../../src/shared/database.ts';
import { AMOUNT_MAX, BalanceModel, type ModelResult, type ModelUpdate } from '../balance-model.ts';
import { cleanUp, createDatabase, type Database, insertAccounts, until, verified } from '../harness.ts';

const RUNS = 1000;
const BATCHES_PER_RUN_MAX = 10;
const START = Date.parse('2026-01-01T00:00:00Z');

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
});
afterAll(cleanUp);

async function apply(client: pg.ClientBase | pg.Pool, updates: ModelUpdate[], now: number): Promise<ModelResult[]> {
  const { rows } = await client.query(
    `SELECT item, outcome, replayed, balance::text, version::text, created_at
     FROM apply_balance_updates($1, $2, $3, $4, array_fill(NULL::text, ARRAY[$6::int]),
                                array_fill('client'::text, ARRAY[$6::int]), $5)`,
    [
      updates.map((update) => update.accountId),
      updates.map((update) => update.amount),
      updates.map((update) => update.reference),
      updates.map((update) => update.key),
      new Date(now).toISOString(),
      updates.length,
    ],
  );
  expect(rows.map((row) => row.item).sort((a, b) => a - b)).toEqual(updates.map((_, index) => index + 1));
  const results: ModelResult[] = [];
  for (const row of rows) {
    results[row.item - 1] = {
      outcome: row.outcome,
      replayed: row.replayed,
      balance: row.balance === null ? null : BigInt(row.balance),
      version: row.version === null ? null : BigInt(row.version),
      createdAt: row.created_at === null ? null : row.created_at.getTime(),
    };
  }
  return results;
}

const update = (accountId: string, amount: bigint, key: string | null = null, reference: string | null = null) => ({
  accountId,
  amount,
  key,
  reference,
});

describe('apply_balance_updates', () => {
  // Few accounts, keys and references, so that they meet; amounts small, so that limits are reached, or extreme.
  const amounts = fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: -12, max: 12 }).map(BigInt) },
    { weight: 1, arbitrary: fc.constantFrom(AMOUNT_MAX, -AMOUNT_MAX, AMOUNT_MAX - 3n, 3n - AMOUNT_MAX) },
  );
  const updates = fc.record({
    accountId: fc.constantFrom('a', 'b', 'B', 'c', 'ghost'),
    amount: amounts.filter((amount) => amount !== 0n),
    reference: fc.constantFrom(null, null, null, 'r'),
    key: fc.option(fc.constantFrom('1', '2', '3', '4', '5'), { freq: 2 }),
  });
  const steps = fc.oneof(
    {
      weight: 9,
      arbitrary: fc.record({
        batch: fc.array(updates, { minLength: 1, maxLength: 15 }),
        clockMs: fc.integer({ min: -60_000, max: 60_000 }),
      }),
    },
    { weight: 1, arbitrary: fc.record({ freeze: fc.constantFrom('a', 'b', 'c'), frozen: fc.boolean() }) },
  );
  const limits = fc.tuple(...Array.from({ length: 4 }, () => fc.constantFrom(0n, 0n, 5n, 20n, AMOUNT_MAX)));

  it('decides like the model, over thousands of random batches', { timeout: 180_000 }, async () => {
    let run = 0;
    let batches = 0;
    await fc.assert(
      fc.asyncProperty(
        limits,
        fc.array(steps, { minLength: 1, maxLength: BATCHES_PER_RUN_MAX }),
        async (limit, plan) => {
          run += 1;
          const name = (id: string) => `run${run}-${id}`;
          const model = new BalanceModel();
          for (const [index, id] of ['a', 'b', 'B', 'c'].entries()) {
            model.create(name(id), limit[index] as bigint, START);
            await database.pool.query('INSERT INTO account VALUES ($1, 0, 0, $2, $3, $4, $4)', [
              name(id),
              limit[index],
              'open',
              new Date(START).toISOString(),
            ]);
          }
          for (const step of plan) {
            if ('freeze' in step) {
              const account = model.accounts.get(name(step.freeze));
              if (account) account.frozen = step.frozen;
              const status = step.frozen ? 'frozen' : 'open';
              await database.pool.query('UPDATE account SET status = $2 WHERE account_id = $1', [
                name(step.freeze),
                status,
              ]);
              continue;
            }
            batches += 1;
            const batch = step.batch.map((one) => ({ ...one, accountId: name(one.accountId) }));
            const now = START + step.clockMs;
            const expected = batch.map((one) => model.apply(one, now));
            expect(await apply(database.pool, batch, now)).toEqual(expected);
          }
          await expectSameState(model, `run${run}-`);
        },
      ),
      { numRuns: RUNS },
    );
    expect(batches).toBeGreaterThan(RUNS); // the plans were not empty
    expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
  });

  async function expectSameState(model: BalanceModel, prefix: string): Promise<void> {
    const accounts = await database.pool.query(
      `SELECT account_id AS id, balance::text, version::text, updated_at AS at FROM account WHERE starts_with(account_id, $1)`,
      [prefix],
    );
    expect(
      new Map(accounts.rows.map(({ id, balance, version, at }) => [id, [balance, version, at.getTime()]])),
    ).toEqual(
      new Map([...model.accounts].map(([id, one]) => [id, [String(one.balance), String(one.version), one.updatedAt]])),
    );
    const outbox = await database.pool.query(
      `SELECT account_id AS "accountId", version::text, amount::text, balance::text, reference, created_at
       FROM outbox WHERE starts_with(account_id, $1) ORDER BY position`,
      [prefix],
    );
    expect(outbox.rows.map(({ created_at, ...row }) => ({ ...row, createdAt: created_at.getTime() }))).toEqual(
      model.changes.map((change) => ({
        ...change,
        version: String(change.version),
        amount: String(change.amount),
        balance: String(change.balance),
      })),
    );
  }

  const waitsForALock = (pid: number) =>
    until('the session waits for a lock', async () => {
      const activity = await database.pool.query('SELECT wait_event_type FROM pg_stat_activity WHERE pid = $1', [pid]);
      return activity.rows[0].wait_event_type === 'Lock';
    });

  it('applies a key once when many sessions send it at the same moment', async () => {
    await insertAccounts(database, 'race');
    for (let round = 1; round <= 30; round += 1) {
      const one = [update('race', 7n, `key ${round}`)];
      const results = await Promise.all(Array.from({ length: 8 }, () => apply(database.pool, one, START)));
      expect(results.filter(([result]) => !result?.replayed)).toHaveLength(1);
      for (const [result] of results) expect(result).toMatchObject({ outcome: 'applied', version: BigInt(round) });
    }
  });

  it('replays to a session that was waiting for the first one to commit', async () => {
    await insertAccounts(database, 'waiting');
    const first = await database.pool.connect();
    const second = await database.pool.connect();
    try {
      await first.query('BEGIN');
      await apply(first, [update('waiting', 5n, 'k')], START);
      const { rows } = await second.query('SELECT pg_backend_pid() AS pid');
      const waiting = apply(second, [update('waiting', 5n, 'k')], START);
      await waitsForALock(rows[0].pid);
      await first.query('COMMIT');
      expect(await waiting).toMatchObject([{ outcome: 'applied', replayed: true, balance: 5n, version: 1n }]);
    } finally {
      first.release();
      second.release();
    }
  });

  it('does not change an account that was created while it waited for the locks of its batch', async () => {
    await insertAccounts(database, 'locked');
    const holder = await database.pool.connect();
    const batcher = await database.pool.connect();
    try {
      await holder.query('BEGIN');
      await holder.query(`SELECT FROM account WHERE account_id = 'locked' FOR UPDATE`);
      const pid = (await batcher.query('SELECT pg_backend_pid() AS pid')).rows[0].pid;
      const batch = apply(batcher, [update('locked', 1n), update('newcomer', 1n), update('newcomer', 2n, 'k')], START);
      await waitsForALock(pid);
      await insertAccounts(database, 'newcomer');
      await holder.query('COMMIT');
      expect((await batch).map(({ outcome }) => outcome)).toEqual([
        'applied',
        'account_not_found',
        'account_not_found',
      ]);
      const again = [update('locked', 1n), update('newcomer', 2n, 'k')];
      expect(await apply(batcher, again, START)).toMatchObject([
        { outcome: 'applied', version: 2n },
        { outcome: 'applied', version: 1n, balance: 2n, replayed: false },
      ]);
    } finally {
      holder.release();
      batcher.release();
    }
  });

  it('does not deadlock when batches name the same accounts in opposite order', async () => {
    const ids = Array.from({ length: 20 }, (_, index) => `crossing-${index}`);
    await insertAccounts(database, ...ids);
    const there = ids.map((id) => update(id, 1n));
    const back = [...there].reverse();
    const batches = Array.from({ length: 60 }, (_, index) => apply(database.pool, index % 2 ? there : back, START));
    await Promise.all(batches);
    const { rows } = await database.pool.query(
      `SELECT sum(balance) AS total FROM account WHERE account_id LIKE 'crossing-%'`,
    );
    expect(Number(rows[0].total)).toBe(60 * ids.length);
  });

  it('refuses to run above READ COMMITTED, where a key could apply twice', async () => {
    await insertAccounts(database, 'isolated');
    const client = await openClient(database.url, 'test');
    try {
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
      await expect(apply(client, [update('isolated', 1n)], START)).rejects.toThrow(/READ COMMITTED/);
    } finally {
      await client.end();
    }
  });

  it('survives amounts at the ends of bigint without an error', async () => {
    await insertAccounts(database, 'extreme');
    const batch = [9_223_372_036_854_775_807n, -9_223_372_036_854_775_808n, 4n].map((amount) =>
      update('extreme', amount),
    );
    const results = await apply(database.pool, batch, START);
    expect(results.map((result) => result.outcome)).toEqual([
      'balance_out_of_range',
      'balance_out_of_range',
      'applied',
    ]);
  });

  it('keeps its speed on tables that were empty when they were last analyzed', async () => {
    const fresh = await createDatabase();
    await fresh.pool.query('VACUUM ANALYZE');
    const ids = Array.from({ length: 100 }, (_, index) => `fresh-${index}`);
    await insertAccounts(fresh, ...ids);
    const client = await fresh.pool.connect(); // one connection, as a lane: its plan is made once
    try {
      const batch = (round: number) =>
        Array.from({ length: 1000 }, (_, index) => update(ids[index % ids.length] as string, 1n, `${round} ${index}`));
      for (let round = 0; round < 11; round += 1) await apply(client, batch(round), START);
      const startedAt = performance.now();
      await apply(client, batch(11), START);
      expect(performance.now() - startedAt).toBeLessThan(400); // about 20 ms; 950 ms where a look-up walks a whole index
    } finally {
      client.release();
    }
  });
});
