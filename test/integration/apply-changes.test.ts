// The SQL functions that change accounts against a plain model, and the races that a model cannot
// show.
import fc from 'fast-check';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { APPLY, type ApplyAnswer, parametersOf, resultsOf } from '../../src/api/updates/batch.ts';
import { fingerprintOf } from '../../src/api/updates/fingerprint.ts';
import type { Leg, Operation, OperationResult } from '../../src/api/updates/operation.ts';
import { eventId } from '../../src/shared/change.ts';
import { openClient } from '../../src/shared/database.ts';
import { AMOUNT_MAX, BalanceModel, type ModelLimits, type ModelNow } from '../support/balance-model.ts';
import { cleanUp, createDatabase, type Database, insertAccounts, until, verified } from '../support/harness.ts';

const RUNS = 1500;
const BATCHES_PER_RUN_MAX = 10;

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
});
afterAll(cleanUp);

interface Applied {
  results: OperationResult[];
  now: ModelNow;
}

/** As a lane sends it. */
async function apply(client: pg.ClientBase | pg.Pool, operations: readonly Operation[]): Promise<Applied> {
  const { rows } = await client.query<ApplyAnswer>(APPLY.text, parametersOf(operations));
  const answer = rows[0] as ApplyAnswer;
  const now = { epoch: answer.batch_epoch, time: answer.batch_time.getTime() };
  return { results: resultsOf(operations, answer), now };
}

const leg = (accountId: string, amount: number | null, more: Partial<Leg> = {}): Leg => ({
  ...{ accountId, amount, reference: null, metadata: null, expectedVersion: null, upTo: false },
  ...more,
});

function operation(kind: Operation['kind'], legs: readonly Leg[], more: Partial<Operation> = {}): Operation {
  const ids = (some: readonly Leg[]) => some.map(({ accountId }) => accountId).sort();
  const [lowest] = [...ids(legs.filter(({ amount }) => (amount ?? 0) < 0)), ...ids(legs)];
  const made: Operation = {
    ...{ kind, legs: legs as Operation['legs'], keyAccountId: lowest as string },
    ...{ idempotencyKey: null, fingerprint: null, actor: 'client', traceparent: null },
    ...more,
  };
  if (made.idempotencyKey === null && kind !== 'hold') return made;
  return { ...made, fingerprint: fingerprintOf(kind, { legs, hold: made.hold, reversal: made.reversal }) };
}

const update = (
  accountId: string,
  amount: number,
  key: string | null = null,
  reference: string | null = null,
  actor: string | null = 'client',
): Operation => operation('update', [leg(accountId, amount, { reference })], { idempotencyKey: key, actor });

/** The parts of results that a short check is about. */
const seen = (results: readonly OperationResult[]) =>
  results.map((result) => {
    const { outcome } = result;
    const replayed = 'replayed' in result && result.replayed;
    const at =
      outcome === 'applied' && 'legs' in result ? result.legs[0] : 'found' in result ? result.found : undefined;
    return { outcome, replayed, balance: at?.balance ?? null, version: at?.version ?? null };
  });
const resultsIn = async (...call: Parameters<typeof apply>) => seen((await apply(...call)).results);

/**
 * What a decline says of time and epoch is of no use to anyone, and differs from one path to
 * another.
 */
function comparable(result: OperationResult): object {
  if (!('found' in result)) return result;
  const { balance, version } = result.found;
  return { ...result, found: { balance, version } };
}

describe('apply_changes', () => {
  const accounts = ['a', 'b', 'B', 'c', 'other'];
  // Few accounts, keys, clients and references, so that they meet; amounts small, so that limits
  // are reached, or extreme.
  const small = fc.integer({ min: 1, max: 12 });
  const amounts = fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: -12, max: 12 }).filter((amount) => amount !== 0) },
    { weight: 1, arbitrary: fc.constantFrom(AMOUNT_MAX, -AMOUNT_MAX, AMOUNT_MAX - 3, 3 - AMOUNT_MAX) },
  );
  const anAccount = fc.constantFrom('a', 'a', 'b', 'B', 'c', 'other', 'ghost');
  const seldom = <T>(value: fc.Arbitrary<T>) => fc.option(value, { freq: 6 }).map((one) => one ?? null);
  const common = fc.record({
    idempotencyKey: fc.option(fc.constantFrom('1', '2', '3', '4', '5', '6'), { freq: 2 }),
    actor: fc.constantFrom(null, 'x', 'x', 'y'),
  });
  const note = fc.record({
    reference: fc.constantFrom(null, null, 'r'),
    metadata: fc.constantFrom(null, null, '{"order":"1"}'),
  });
  const updateLegs = fc
    .record({
      accountId: anAccount,
      amount: amounts,
      note,
      expectedVersion: seldom(fc.integer({ min: 0, max: 5 })),
      upTo: fc.boolean(),
    })
    .map(({ accountId, amount, note, expectedVersion, upTo }) =>
      leg(accountId, amount, { ...note, expectedVersion, upTo: upTo && amount < 0 && Math.abs(amount) < 100 }),
    );
  const updates = fc.tuple(updateLegs, common).map(([one, more]) => operation('update', [one], more));
  const atomics = fc
    .tuple(fc.array(updateLegs, { minLength: 1, maxLength: 5 }), common)
    .map(([legs, more]) => operation('atomic', legs, more));
  const transfers = fc
    .tuple(
      fc.uniqueArray(anAccount, { minLength: 2, maxLength: 4 }),
      fc.array(amounts, { minLength: 3, maxLength: 3 }),
      note,
      common,
    )
    .map(([ids, given, its, more]) => {
      const shares = given.map((amount) => (Math.abs(amount) < 100 ? amount : 5)).slice(0, ids.length - 1);
      const total = shares.reduce((sum, share) => sum + share, 0) || 7;
      if (shares.reduce((sum, share) => sum + share, 0) === 0) shares[0] = (shares[0] as number) + 7;
      const all = [...shares, -total].map((amount) => amount || 0);
      const legs = ids.map((id, index) => leg(id, all[index] as number, its)).filter(({ amount }) => amount !== 0);
      legs.sort((one, other) => (one.accountId < other.accountId ? -1 : 1));
      return operation('transfer', legs, more);
    });
  const aHold = fc.constantFrom('h1', 'h2');
  const aHolder = fc.constantFrom('a', 'a', 'a', 'b', 'ghost');
  const holds = fc
    .tuple(aHolder, small, note, aHold, fc.constantFrom(null, 3600, 7200), common)
    .map(([id, amount, its, holdId, expiresInS, { actor }]) =>
      operation('hold', [leg(id, amount, its)], { actor, hold: { holdId, expiresInS } }),
    );
  const ofHolds = fc
    .record({
      id: aHolder,
      kind: fc.constantFrom('capture', 'capture', 'capture_final', 'release', 'hold_change'),
      amount: fc.option(small, { freq: 2 }),
      to: seldom(anAccount),
      seconds: fc.constantFrom(null, 0, 3600),
      ...{ its: note, holdId: aHold, more: common },
    })
    .map(({ id, kind, amount, to, seconds, its, holdId, more }) => {
      const isCapture = kind.startsWith('capture');
      const legs = [leg(id, amount === null || !isCapture ? amount : -amount, its)];
      if (isCapture && to !== null && to !== id) legs.push(leg(to, amount, its));
      const hold = { holdId, expiresInS: kind === 'hold_change' ? seconds : null };
      return operation(kind as Operation['kind'], legs, { ...more, keyAccountId: id, hold });
    });
  /** Of the changes until then: which one, and how much of it. */
  const reversals = fc.record({ nth: fc.nat(), amount: seldom(small), its: note, more: common });
  const limits = fc.record({
    overdraftLimit: fc.constantFrom(0, 0, 5, 20, AMOUNT_MAX),
    maxBalance: fc.constantFrom(null, null, 0, 15, AMOUNT_MAX),
  });
  const changes = fc.record(
    {
      overdraftLimit: limits.map((one) => one.overdraftLimit),
      maxBalance: limits.map((one) => one.maxBalance),
      status: fc.constantFrom('open', 'open', 'frozen', 'closed'),
    },
    { requiredKeys: [] },
  );
  type Item =
    | { operation: Operation }
    | { reversal: { nth: number; amount: number | null; its: object; more: object } };
  const items: fc.Arbitrary<Item> = fc.oneof(
    { weight: 5, arbitrary: updates.map((operation) => ({ operation })) },
    { weight: 3, arbitrary: transfers.map((operation) => ({ operation })) },
    { weight: 1, arbitrary: atomics.map((operation) => ({ operation })) },
    { weight: 3, arbitrary: holds.map((operation) => ({ operation })) },
    { weight: 4, arbitrary: ofHolds.map((operation) => ({ operation })) },
    { weight: 2, arbitrary: reversals.map((reversal) => ({ reversal })) },
  );
  const steps = fc.oneof(
    { weight: 9, arbitrary: fc.record({ batch: fc.array(items, { minLength: 1, maxLength: 12 }) }) },
    { weight: 2, arbitrary: fc.record({ lone: updates }) },
    { weight: 3, arbitrary: fc.record({ account: anAccount, change: changes }) },
    // The clock of the machine was put back by so much, as far as this account can see.
    { weight: 1, arbitrary: fc.record({ ahead: anAccount, byMs: fc.integer({ min: 1, max: 60_000 }) }) },
    // The last one to raise the epoch was another server.
    { weight: 1, arbitrary: fc.constant({ restart: true }) },
    // Time has passed: the holds of an account are due.
    { weight: 2, arbitrary: fc.record({ due: anAccount }) },
  );

  it('decides like the model, over thousands of random batches', { timeout: 180_000 }, async () => {
    let run = 0;
    const outcomes: Record<string, number> = {};
    await fc.assert(
      fc.asyncProperty(
        fc.array(limits, { minLength: accounts.length, maxLength: accounts.length }),
        fc.array(steps, { minLength: 1, maxLength: BATCHES_PER_RUN_MAX }),
        async (limit, plan) => {
          run += 1;
          const name = (id: string) => `run${run}-${id}`;
          const model = new BalanceModel();
          for (const [index, id] of accounts.entries()) {
            const its = limit[index] as (typeof limit)[0];
            const asset = id === 'other' ? 'OTHER' : 'UNIT';
            model.open(name(id), asset, its, await open(name(id), asset, its));
          }
          const start = accounts.map((id) => update(name(id), 5));
          const { results: started, now: startedAt } = await apply(database.pool, start);
          expect(started.map(comparable)).toEqual(model.applyAll(start, startedAt).map(comparable));
          const named = (one: Operation): Operation => ({
            ...one,
            legs: one.legs.map((its) => ({ ...its, accountId: name(its.accountId) })) as unknown as Operation['legs'],
            keyAccountId: name(one.keyAccountId),
          });
          let epoch = 0;
          for (const step of plan) {
            if ('restart' in step) {
              await database.pool.query(
                `INSERT INTO epoch (epoch, timeline, server_started_at, database_name, table_oid)
               SELECT max(epoch) + 1000, 'FFFFFFFF', now(), current_database(), 'epoch'::regclass FROM epoch`,
              );
              epoch += 1000;
            } else if ('ahead' in step) {
              const account = model.accounts.get(name(step.ahead));
              if (account) account.updatedAt += step.byMs;
              await database.pool.query(
                `UPDATE account SET updated_at = updated_at + $2 * interval '1 ms' WHERE account_id = $1`,
                [name(step.ahead), step.byMs],
              );
            } else if ('due' in step) {
              // Each a millisecond later than the one before, so that their order is that of their
              // names.
              const found = [...(model.accounts.get(name(step.due))?.holds ?? [])].sort(([one], [other]) =>
                one < other ? -1 : 1,
              );
              for (const [index, [id, hold]] of found.entries()) {
                if (hold.status !== 'active') continue;
                hold.expiresAt = Date.parse('2020-01-01T00:00:00Z') + index;
                await database.pool.query('UPDATE hold SET expires_at = $3 WHERE account_id = $1 AND hold_id = $2', [
                  name(step.due),
                  id,
                  new Date(hold.expiresAt).toISOString(),
                ]);
              }
            } else if ('change' in step) {
              const wanted = step.change as Partial<ModelLimits>;
              const { outcome, now } = await change(name(step.account), wanted);
              expect(model.change(name(step.account), wanted, now ?? { epoch: 0, time: 0 })).toBe(outcome);
              if (now) expect(model.accounts.get(name(step.account))?.epoch).toBe(now.epoch);
            } else {
              const given: Item[] = 'lone' in step ? [{ operation: step.lone }] : step.batch;
              const batch = given.map((item) =>
                'operation' in item ? named(item.operation) : reversalOf(model, name('a'), item.reversal),
              );
              const { results, now } = await apply(database.pool, batch);
              const expected = model.applyAll(batch, now);
              expect(results.map(comparable)).toEqual(expected.map(comparable));
              // A lone decline or retry says nothing of the present.
              if (results.some((result) => result.outcome === 'applied' && !result.replayed)) {
                expect(now.epoch).toBeGreaterThanOrEqual(epoch);
                epoch = now.epoch;
              }
              for (const [index, { outcome }] of results.entries()) {
                const kind = `${batch[index]?.kind} ${outcome}`;
                outcomes[kind] = (outcomes[kind] ?? 0) + 1;
              }
            }
          }
          await expectSameState(model, `run${run}-`);
        },
      ),
      { numRuns: RUNS },
    );
    // The plans were not empty: each kind was applied, and declined in every way.
    for (const kind of [
      'update',
      'transfer',
      'atomic',
      'hold',
      'capture',
      'capture_final',
      'release',
      'hold_change',
      'reversal_rest',
    ])
      expect(outcomes[`${kind} applied`], kind).toBeGreaterThan(30);
    const declined = new Set(Object.keys(outcomes).map((kind) => kind.split(' ')[1]));
    expect([...declined].sort()).toEqual(
      [
        ...[
          'applied',
          'idempotency_key_reused',
          'hold_exists',
          'account_not_found',
          'account_closed',
          'account_frozen',
          'asset_mismatch',
        ],
        ...['hold_not_found', 'hold_closed', 'hold_expired', 'not_reversible', 'already_reversed', 'version_mismatch'],
        ...[
          'hold_amount_exceeded',
          'reversal_exceeds',
          'balance_out_of_range',
          'max_balance_exceeded',
          'insufficient_funds',
        ],
      ].sort(),
    );
    // Only that the test itself made holds due, and moved accounts into the future, may be seen.
    const { offenders } = await verified(database);
    const problems = offenders.flatMap((offender) => offender.problems);
    const own = ['has another expiry than its last entry', 'the account was last changed at'];
    expect(problems.filter((problem) => !own.some((one) => problem.includes(one)))).toEqual([]);
  });

  /**
   * As the API makes it of the change that is named: what has no money, and what is a reversal
   * itself, cannot be reversed.
   */
  function reversalOf(
    model: BalanceModel,
    anyAccount: string,
    { nth, amount, its, more }: { nth: number; amount: number | null; its: object; more: object },
  ): Operation {
    const change = model.changes[nth % model.changes.length];
    if (!change) throw new Error(`${anyAccount} was not opened`);
    const legs = change.transferId
      ? model.changes.filter(({ transferId }) => transferId === change.transferId)
      : [change];
    legs.sort((one, other) => (one.accountId < other.accountId ? -1 : 1));
    const payer = legs.find((one) => one.amount < 0) ?? change;
    const isReversible = change.amount !== 0 && change.reverses === null;
    const whole = amount === null || legs.length > 2;
    const reversing = legs.map((one) =>
      leg(one.accountId, whole ? -one.amount || 1 : -Math.sign(one.amount) * (amount as number) || 1, its),
    );
    return operation(whole ? 'reversal_rest' : 'reversal', reversing, {
      ...more,
      reversal: {
        ...{ accountId: payer.accountId, version: payer.version, epoch: payer.epoch },
        original: isReversible
          ? legs.filter((one) => one.amount < 0).reduce((sum, one) => sum - one.amount, 0) || change.amount
          : null,
        id: change.transferId ?? eventId(change),
      },
    });
  }

  async function open(
    id: string,
    asset: string,
    { overdraftLimit, maxBalance }: Omit<ModelLimits, 'status'>,
  ): Promise<ModelNow> {
    const { rows } = await database.pool.query(
      `SELECT (account).epoch, (account).updated_at AS time FROM open_account($1, $2, $3, $4, NULL, NULL)`,
      [id, asset, overdraftLimit, maxBalance],
    );
    return { epoch: rows[0].epoch, time: rows[0].time.getTime() };
  }

  async function change(
    id: string,
    wanted: Partial<ModelLimits>,
  ): Promise<{ outcome: string; now: ModelNow | undefined }> {
    const { rows } = await database.pool.query(
      `SELECT outcome, (account).epoch, (account).updated_at AS time FROM change_account($1, $2, NULL, NULL)`,
      [id, JSON.stringify(wanted)],
    );
    const { outcome, epoch, time } = rows[0];
    return { outcome, now: time === null ? undefined : { epoch, time: time.getTime() } };
  }

  async function expectSameState(model: BalanceModel, prefix: string): Promise<void> {
    const found = await database.pool.query(
      `SELECT account_id AS id, asset, balance, held, version, epoch, overdraft_limit AS "overdraftLimit",
              max_balance AS "maxBalance", status, updated_at AS at
       FROM account WHERE starts_with(account_id, $1)`,
      [prefix],
    );
    expect(new Map(found.rows.map(({ id, at, ...row }) => [id, { ...row, updatedAt: at.getTime() }]))).toEqual(
      new Map([...model.accounts].map(([id, { holds, ...one }]) => [id, one])),
    );
    const outbox = await database.pool.query(
      `SELECT account_id AS "accountId", version, epoch, previous_epoch AS "previousEpoch", type, amount, held_change AS "heldChange",
              balance, held, reference, metadata, actor, transfer_id AS "transferId", reverses, created_at AS at,
              hold_id, hold_status, hold_remaining, hold_expires_at,
              overdraft_limit AS "overdraftLimit", max_balance AS "maxBalance", status
       FROM outbox WHERE starts_with(account_id, $1) ORDER BY position`,
      [prefix],
    );
    expect(
      outbox.rows.map(
        ({
          at,
          overdraftLimit,
          maxBalance,
          status,
          hold_id: id,
          hold_status,
          hold_remaining,
          hold_expires_at,
          ...row
        }) => ({
          ...{ ...row, createdAt: at.getTime() },
          hold:
            id === null
              ? null
              : { id, status: hold_status, remaining: hold_remaining, expiresAt: hold_expires_at?.getTime() ?? null },
          limits: status === null ? null : { overdraftLimit, maxBalance, status },
        }),
      ),
    ).toEqual(model.changes);
    const held = await database.pool.query(
      `SELECT account_id || ' ' || hold_id AS id, amount, captured, remaining, status, expires_at, created_at, updated_at, client
       FROM hold WHERE starts_with(account_id, $1)`,
      [prefix],
    );
    expect(
      new Map(
        held.rows.map(({ id, expires_at, created_at, updated_at, ...row }) => [
          id,
          {
            ...row,
            expiresAt: expires_at?.getTime() ?? null,
            createdAt: created_at.getTime(),
            updatedAt: updated_at.getTime(),
          },
        ]),
      ),
    ).toEqual(
      new Map(
        [...model.accounts].flatMap(([account, { holds }]) =>
          [...holds].map(([id, { fingerprint, ...hold }]) => [`${account} ${id}`, hold]),
        ),
      ),
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
      const one = [update('race', 7, `key ${round}`)];
      const results = await Promise.all(Array.from({ length: 8 }, () => resultsIn(database.pool, one)));
      expect(results.filter(([result]) => !result?.replayed)).toHaveLength(1);
      for (const [result] of results) expect(result).toMatchObject({ outcome: 'applied', version: round });
    }
  });

  it('replays to a session that was waiting for the first one to commit', async () => {
    await insertAccounts(database, 'waiting');
    const first = await database.pool.connect();
    const second = await database.pool.connect();
    try {
      await first.query('BEGIN');
      await apply(first, [update('waiting', 5, 'k')]);
      const { rows } = await second.query('SELECT pg_backend_pid() AS pid');
      const waiting = resultsIn(second, [update('waiting', 5, 'k')]);
      await waitsForALock(rows[0].pid);
      await first.query('COMMIT');
      expect(await waiting).toMatchObject([{ outcome: 'applied', replayed: true, balance: 5, version: 1 }]);
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
      const batch = resultsIn(batcher, [update('locked', 1), update('newcomer', 1), update('newcomer', 2, 'k')]);
      await waitsForALock(pid);
      await insertAccounts(database, 'newcomer');
      await holder.query('COMMIT');
      expect((await batch).map(({ outcome }) => outcome)).toEqual([
        'applied',
        'account_not_found',
        'account_not_found',
      ]);
      const again = [update('locked', 1), update('newcomer', 2, 'k')];
      expect(await resultsIn(batcher, again)).toMatchObject([
        { outcome: 'applied', version: 2 },
        { outcome: 'applied', version: 1, balance: 2, replayed: false },
      ]);
    } finally {
      holder.release();
      batcher.release();
    }
  });

  it('does not deadlock when batches name the same accounts in opposite order', async () => {
    const ids = Array.from({ length: 20 }, (_, index) => `crossing-${index}`);
    await insertAccounts(database, ...ids);
    const there = ids.map((id) => update(id, 1));
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
      await expect(apply(client, [update('isolated', 1)])).rejects.toThrow(/READ COMMITTED/);
    } finally {
      await client.end();
    }
  });

  it('survives amounts at the ends of bigint without an error', async () => {
    await insertAccounts(database, 'extreme');
    const batch = [9_223_372_036_854_775_807n, -9_223_372_036_854_775_808n, 4n].map(
      (amount) => update('extreme', amount as unknown as number), // written in full
    );
    const results = await resultsIn(database.pool, batch);
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
        Array.from({ length: 1000 }, (_, index) => update(ids[index % ids.length] as string, 1, `${round} ${index}`));
      for (let round = 0; round < 11; round += 1) await apply(client, batch(round));
      let fastestMs = Number.POSITIVE_INFINITY;
      for (let round = 11; round < 16; round += 1) {
        const startedAt = performance.now();
        await apply(client, batch(round));
        fastestMs = Math.min(fastestMs, performance.now() - startedAt);
      }
      expect(fastestMs).toBeLessThan(400); // about 20 ms; 950 ms where a look-up walks a whole index
    } finally {
      client.release();
    }
  });
});
