// The SQL functions that change accounts against a plain model, and the races that a model cannot show.
import fc from 'fast-check';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BalanceUpdate } from '../../src/api/updates/balance-update.ts';
import { parametersOf } from '../../src/api/updates/batch.ts';
import { fingerprintOf } from '../../src/api/updates/fingerprint.ts';
import { openClient } from '../../src/shared/database.ts';
import {
  AMOUNT_MAX,
  BalanceModel,
  type ModelLimits,
  type ModelNow,
  type ModelResult,
  type ModelUpdate,
} from '../balance-model.ts';
import { cleanUp, createDatabase, type Database, insertAccounts, until, verified } from '../harness.ts';

const RUNS = 1000;
const BATCHES_PER_RUN_MAX = 10;

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
});
afterAll(cleanUp);

interface Applied {
  results: ModelResult[];
  now: ModelNow;
}

/** As a lane sends it, but that every number comes back exactly, and every array whole. */
async function apply(client: pg.ClientBase | pg.Pool, updates: ModelUpdate[]): Promise<Applied> {
  const batch = updates.map(
    ({ accountId, amount, reference, actor, key }): BalanceUpdate => ({
      ...{ accountId, reference, actor, idempotencyKey: key, traceparent: null },
      amount: amount as unknown as number, // written in full
      fingerprint:
        key === null
          ? null
          : fingerprintOf('balance-update', { amount: String(amount), reference: reference ?? undefined }),
    }),
  );
  const { rows } = await client.query(
    `SELECT answer.batch_epoch, answer.batch_time,
            item.outcome, coalesce(item.replayed, false) AS replayed, item.balance::text, item.version::text, item.epoch::text, item.time
     FROM apply_changes($1, $2, $3, $4, $5, $6, $7, $8, $9) AS answer,
          unnest(answer.balances, answer.versions, answer.outcomes, answer.replayed, answer.epochs, answer.times) WITH ORDINALITY
            AS item (balance, version, outcome, replayed, epoch, time, number)
     ORDER BY item.number`,
    parametersOf(batch),
  );
  expect(rows).toHaveLength(updates.length);
  const now = { epoch: BigInt(rows[0].batch_epoch), time: rows[0].batch_time.getTime() };
  const results = rows.map((row): ModelResult => {
    const isRemembered = row.balance !== null;
    return {
      outcome: row.outcome ?? 'applied',
      replayed: row.replayed,
      balance: isRemembered ? BigInt(row.balance) : null,
      version: isRemembered ? BigInt(row.version) : null,
      epoch: row.outcome === null ? BigInt(row.epoch ?? now.epoch) : null,
      createdAt: isRemembered ? (row.time?.getTime() ?? now.time) : null,
    };
  });
  return { results, now };
}

const resultsOf = async (...call: Parameters<typeof apply>) => (await apply(...call)).results;

const update = (
  accountId: string,
  amount: bigint,
  key: string | null = null,
  reference: string | null = null,
  actor: string | null = 'client',
): ModelUpdate => ({ accountId, amount, key, reference, actor });

describe('apply_changes', () => {
  // Few accounts, keys, clients and references, so that they meet; amounts small, so that limits are reached, or extreme.
  const amounts = fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: -12, max: 12 }).map(BigInt) },
    { weight: 1, arbitrary: fc.constantFrom(AMOUNT_MAX, -AMOUNT_MAX, AMOUNT_MAX - 3n, 3n - AMOUNT_MAX) },
  );
  const updates = fc.record({
    accountId: fc.constantFrom('a', 'b', 'B', 'c', 'ghost'),
    amount: amounts.filter((amount) => amount !== 0n),
    reference: fc.constantFrom(null, null, null, 'r'),
    actor: fc.constantFrom(null, 'x', 'x', 'y'),
    key: fc.option(fc.constantFrom('1', '2', '3', '4', '5'), { freq: 2 }),
  });
  const limits = fc.record({
    overdraftLimit: fc.constantFrom(0n, 0n, 5n, 20n, AMOUNT_MAX),
    maxBalance: fc.constantFrom(null, null, 0n, 15n, AMOUNT_MAX),
  });
  const changes = fc.record(
    {
      overdraftLimit: limits.map((one) => one.overdraftLimit),
      maxBalance: limits.map((one) => one.maxBalance),
      status: fc.constantFrom('open', 'open', 'frozen', 'closed'),
    },
    { requiredKeys: [] },
  );
  const steps = fc.oneof(
    { weight: 9, arbitrary: fc.record({ batch: fc.array(updates, { minLength: 1, maxLength: 15 }) }) },
    { weight: 3, arbitrary: fc.record({ account: fc.constantFrom('a', 'b', 'B', 'c', 'ghost'), change: changes }) },
    // The clock of the machine was put back by so much, as far as this account can tell.
    {
      weight: 1,
      arbitrary: fc.record({ ahead: fc.constantFrom('a', 'b', 'c'), byMs: fc.integer({ min: 1, max: 60_000 }) }),
    },
    // The last one to raise the epoch was another server.
    { weight: 1, arbitrary: fc.constant({ restart: true }) },
  );

  it('decides like the model, over thousands of random batches', { timeout: 180_000 }, async () => {
    let run = 0;
    let batches = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.tuple(limits, limits, limits, limits),
        fc.array(steps, { minLength: 1, maxLength: BATCHES_PER_RUN_MAX }),
        async (limit, plan) => {
          run += 1;
          const name = (id: string) => `run${run}-${id}`;
          const model = new BalanceModel();
          for (const [index, id] of ['a', 'b', 'B', 'c'].entries()) {
            model.open(
              name(id),
              limit[index] as (typeof limit)[0],
              await open(name(id), limit[index] as (typeof limit)[0]),
            );
          }
          let epoch = 0n;
          for (const step of plan) {
            if ('restart' in step) {
              await database.pool.query(
                `INSERT INTO epoch (epoch, timeline, server_started_at) SELECT max(epoch) + 1000, 'FFFFFFFF', now() FROM epoch`,
              );
              epoch += 1000n;
            } else if ('ahead' in step) {
              const account = model.accounts.get(name(step.ahead));
              if (account) account.updatedAt += step.byMs;
              await database.pool.query(
                `UPDATE account SET updated_at = updated_at + $2 * interval '1 ms' WHERE account_id = $1`,
                [name(step.ahead), step.byMs],
              );
            } else if ('change' in step) {
              const { outcome, now } = await change(name(step.account), step.change as Partial<ModelLimits>);
              const known = model.accounts.get(name(step.account));
              expect(
                model.change(name(step.account), step.change as Partial<ModelLimits>, now ?? { epoch: 0n, time: 0 }),
              ).toBe(outcome);
              if (now) expect(known?.epoch).toBe(now.epoch);
            } else {
              batches += 1;
              const batch = step.batch.map((one) => ({ ...one, accountId: name(one.accountId) }));
              const { results, now } = await apply(database.pool, batch);
              // A lone decline or retry says nothing of the present.
              if (results.some(({ outcome, replayed }) => outcome === 'applied' && !replayed)) {
                expect(now.epoch).toBeGreaterThanOrEqual(epoch);
                epoch = now.epoch;
              }
              expect(results).toEqual(batch.map((one) => model.apply(one, now)));
            }
          }
          await expectSameState(model, `run${run}-`);
        },
      ),
      { numRuns: RUNS },
    );
    expect(batches).toBeGreaterThan(RUNS); // the plans were not empty
    expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
  });

  async function open(id: string, { overdraftLimit, maxBalance }: Omit<ModelLimits, 'status'>): Promise<ModelNow> {
    const { rows } = await database.pool.query(
      `SELECT (account).epoch::text, (account).updated_at AS time FROM open_account($1, 'UNIT', $2, $3, NULL, NULL)`,
      [id, overdraftLimit, maxBalance],
    );
    return { epoch: BigInt(rows[0].epoch), time: rows[0].time.getTime() };
  }

  async function change(
    id: string,
    wanted: Partial<ModelLimits>,
  ): Promise<{ outcome: string; now: ModelNow | undefined }> {
    const json = JSON.stringify(wanted, (_, value) => (typeof value === 'bigint' ? Number(value) : value));
    const { rows } = await database.pool.query(
      `SELECT outcome, (account).epoch::text, (account).updated_at AS time FROM change_account($1, $2, NULL, NULL)`,
      [id, json],
    );
    const { outcome, epoch, time } = rows[0];
    return { outcome, now: outcome === 'changed' ? { epoch: BigInt(epoch), time: time.getTime() } : undefined };
  }

  async function expectSameState(model: BalanceModel, prefix: string): Promise<void> {
    const accounts = await database.pool.query(
      `SELECT account_id AS id, balance::text, version::text, epoch::text, overdraft_limit::text AS "overdraftLimit",
              max_balance::text AS "maxBalance", status, held::text, updated_at AS at
       FROM account WHERE starts_with(account_id, $1)`,
      [prefix],
    );
    expect(new Map(accounts.rows.map(({ id, at, ...row }) => [id, { ...row, updatedAt: at.getTime() }]))).toEqual(
      new Map([...model.accounts].map(([id, one]) => [id, { ...written(one), held: '0' }])),
    );
    const outbox = await database.pool.query(
      `SELECT account_id AS "accountId", version::text, epoch::text, previous_epoch::text AS "previousEpoch", type, amount::text,
              balance::text, reference, actor, created_at AS at, overdraft_limit::text AS "overdraftLimit",
              max_balance::text AS "maxBalance", status
       FROM outbox WHERE starts_with(account_id, $1) ORDER BY position`,
      [prefix],
    );
    expect(
      outbox.rows.map(({ at, overdraftLimit, maxBalance, status, ...row }) => ({
        ...{ ...row, createdAt: at.getTime() },
        limits: status === null ? null : { overdraftLimit, maxBalance, status },
      })),
    ).toEqual(
      model.changes.map(({ limits, ...change }) => ({ ...written(change), limits: limits && written(limits) })),
    );
  }

  /** As the queries above have it. */
  const written = (values: object) =>
    Object.fromEntries(
      Object.entries(values).map(([name, value]) => [name, typeof value === 'bigint' ? String(value) : value]),
    );

  const waitsForALock = (pid: number) =>
    until('the session waits for a lock', async () => {
      const activity = await database.pool.query('SELECT wait_event_type FROM pg_stat_activity WHERE pid = $1', [pid]);
      return activity.rows[0].wait_event_type === 'Lock';
    });

  it('applies a key once when many sessions send it at the same moment', async () => {
    await insertAccounts(database, 'race');
    for (let round = 1; round <= 30; round += 1) {
      const one = [update('race', 7n, `key ${round}`)];
      const results = await Promise.all(Array.from({ length: 8 }, () => resultsOf(database.pool, one)));
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
      await apply(first, [update('waiting', 5n, 'k')]);
      const { rows } = await second.query('SELECT pg_backend_pid() AS pid');
      const waiting = resultsOf(second, [update('waiting', 5n, 'k')]);
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
      const batch = resultsOf(batcher, [update('locked', 1n), update('newcomer', 1n), update('newcomer', 2n, 'k')]);
      await waitsForALock(pid);
      await insertAccounts(database, 'newcomer');
      await holder.query('COMMIT');
      expect((await batch).map(({ outcome }) => outcome)).toEqual([
        'applied',
        'account_not_found',
        'account_not_found',
      ]);
      const again = [update('locked', 1n), update('newcomer', 2n, 'k')];
      expect(await resultsOf(batcher, again)).toMatchObject([
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
    const batches = Array.from({ length: 60 }, (_, index) => apply(database.pool, index % 2 ? there : back));
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
      await expect(apply(client, [update('isolated', 1n)])).rejects.toThrow(/READ COMMITTED/);
    } finally {
      await client.end();
    }
  });

  it('survives amounts at the ends of bigint without an error', async () => {
    await insertAccounts(database, 'extreme');
    const batch = [9_223_372_036_854_775_807n, -9_223_372_036_854_775_808n, 4n].map((amount) =>
      update('extreme', amount),
    );
    const results = await resultsOf(database.pool, batch);
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
      for (let round = 0; round < 11; round += 1) await apply(client, batch(round));
      const startedAt = performance.now();
      await apply(client, batch(11));
      expect(performance.now() - startedAt).toBeLessThan(400); // about 20 ms; 950 ms where a look-up walks a whole index
    } finally {
      client.release();
    }
  });
});
