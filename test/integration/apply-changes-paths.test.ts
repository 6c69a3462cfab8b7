// The evaluator decides a lone item on a short path and unusual batches on a longer one: both have
// to say what the usual one says, and cost about as much.
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { APPLY, type ApplyAnswer, parametersOf, resultsOf } from '../../src/api/updates/batch.ts';
import { fingerprintOf } from '../../src/api/updates/fingerprint.ts';
import type { Operation, OperationResult } from '../../src/api/updates/operation.ts';
import { texts } from '../../src/shared/array-literals.ts';
import { AMOUNT_MAX } from '../../src/shared/balance.ts';
import {
  cleanUp,
  createDatabase,
  type Database,
  insertAccounts,
  updateOperation,
  verified,
} from '../support/harness.ts';

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
});
afterAll(cleanUp);

async function apply(updates: readonly Operation[]): Promise<OperationResult[]> {
  const { rows } = await database.pool.query<ApplyAnswer>({ ...APPLY, values: parametersOf(updates) });
  return resultsOf(updates, rows[0] as ApplyAnswer);
}

interface Wanted {
  account: string;
  amount: number;
  key: string | null;
  actor: string | null;
  reference: string | null;
}

const updateOf = ({ account, amount, key, actor, reference }: Wanted, prefix: string) =>
  updateOperation(`${prefix}${account}`, amount, {
    ...{ actor, reference, idempotencyKey: key },
    fingerprint: key === null ? null : fingerprintOf('test', { account, amount, reference: reference ?? undefined }),
  });

const untimed = (results: readonly OperationResult[]): unknown =>
  JSON.parse(JSON.stringify(results, (name, value) => (name === 'createdAt' ? undefined : value)));

/** Each account with limits and a status that some update meets. */
async function openAll(prefix: string): Promise<void> {
  await database.pool.query(
    `SELECT open_account($1 || id, 'UNIT', overdraft_limit, max_balance, NULL, NULL)
     FROM (VALUES ('a', 0, NULL), ('b', 20, 30), ('frozen', 0, NULL), ('rich', 0, NULL)) AS one (id, overdraft_limit, max_balance)`,
    [prefix],
  );
  await database.pool.query(`SELECT change_account($1 || 'frozen', '{"status": "frozen"}', NULL, NULL)`, [prefix]);
  await apply([updateOf({ account: 'rich', amount: AMOUNT_MAX - 5, key: null, actor: null, reference: null }, prefix)]);
}

const changesOf = async (prefix: string) =>
  (
    await database.pool.query(
      `SELECT substr(account_id, length($1) + 1) AS id, version, amount, balance, type, asset, reference, actor, epoch, previous_epoch
       FROM outbox WHERE starts_with(account_id, $1) ORDER BY position`,
      [prefix],
    )
  ).rows;

it('answers updates one by one as it answers them in one batch', async () => {
  const wanted = fc.record({
    account: fc.constantFrom('a', 'a', 'b', 'frozen', 'rich', 'missing'),
    amount: fc.integer({ min: -12, max: 12 }).filter((amount) => amount !== 0),
    key: fc.option(fc.constantFrom('1', '2', '3'), { freq: 2 }),
    actor: fc.constantFrom(null, 'shop'),
    reference: fc.constantFrom(null, 'r'),
  });
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(wanted, { minLength: 2, maxLength: 25 }), async (list) => {
      run += 1;
      const [lone, batch] = [`lone${run}-`, `batch${run}-`];
      await openAll(lone);
      await openAll(batch);
      const oneByOne: OperationResult[] = [];
      for (const one of list) oneByOne.push(...(await apply([updateOf(one, lone)])));
      expect(untimed(oneByOne)).toEqual(untimed(await apply(list.map((one) => updateOf(one, batch)))));
      expect(await changesOf(lone)).toEqual(await changesOf(batch));
    }),
    { numRuns: 150 },
  );
  expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
});

it.each(['missing', 'frozen'])('decides a batch of 1,000 accounts as fast when one of them is %s', async (what) => {
  const ids = Array.from({ length: 1000 }, (_, index) => `${what}-${index}`);
  await insertAccounts(database, ...ids);
  await insertAccounts(database, 'frozen');
  await database.pool.query(`SELECT change_account('frozen', '{"status": "frozen"}', NULL, NULL)`);
  const batch = (accounts: string[]) =>
    accounts.map((account) => updateOf({ account, amount: 1, key: null, actor: null, reference: null }, ''));
  const fastest = async (updates: Operation[]) => {
    let least = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 8; round += 1) {
      const startedAtMs = performance.now();
      await apply(updates);
      least = Math.min(least, performance.now() - startedAtMs);
    }
    return least;
  };
  const usual = await fastest(batch(ids));
  expect(await fastest(batch([...ids.slice(1), what]))).toBeLessThan(5 * usual); // 20 times where it is quadratic
});

it('refuses accounts that are not in byte order, which it would take for missing', async () => {
  await insertAccounts(database, 'order-a', 'order-b');
  const parameters = parametersOf([
    updateOf({ account: 'a', amount: 1, key: null, actor: null, reference: null }, 'order-'),
  ]);
  for (const accounts of [texts(['order-b', 'order-a']), texts(['order-a', 'order-a'])]) {
    const values = [accounts, '{1,2}', '{1,1}', ...parameters.slice(3)];
    await expect(database.pool.query({ text: APPLY.text, values })).rejects.toThrow(/byte order/);
  }
});
