// Batches lock their accounts once, in one order. Where holds were due the evaluator looks at the
// accounts again: by then others may have been opened, and to lock these too would be to lock out
// of order.
import type pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openClient } from '../../src/shared/database.ts';
import { cleanUp, createDatabase, type Database, insertAccounts, onCleanUp, until } from '../support/harness.ts';

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
});
afterAll(cleanUp);

async function session(): Promise<pg.Client> {
  const client = await openClient(database.url, 'test', { statementTimeoutMs: 20_000 });
  onCleanUp(() => client.end());
  return client;
}

/** A credit of 1 for each, in one batch. @returns the outcomes, null where it was applied. */
async function credit(client: pg.Client, accountIds: string[]): Promise<(string | null)[]> {
  const { rows } = await client.query(
    `SELECT coalesce(outcomes, array_fill(NULL::text, ARRAY[$2::integer])) AS outcomes
     FROM apply_changes($1, ARRAY(SELECT generate_series(1, $2::integer)), array_fill(1::bigint, ARRAY[$2::integer])${', NULL'.repeat(22)})`,
    [accountIds, accountIds.length],
  );
  return rows[0].outcomes;
}

const isWaiting = async (client: pg.Client): Promise<boolean> => {
  const { rows } = await database.pool.query(
    `SELECT wait_event_type = 'Lock' AS waits FROM pg_stat_activity WHERE pid = $1`,
    [(client as pg.Client & { processID: number }).processID],
  );
  return rows[0]?.waits ?? false;
};

it('locks no account that was opened after its first look, while holds were expired', async () => {
  await insertAccounts(database, 'z');
  await database.pool.query(`
    INSERT INTO hold (account_id, hold_id, amount, remaining, expires_at, client, fingerprint, created_at, updated_at)
    VALUES ('z', 'due', 1, 1, now() - interval '1 second', '', decode(repeat('00', 16), 'hex'), now(), now())`);
  await database.pool.query(`UPDATE account SET held = 1, overdraft_limit = 1 WHERE account_id = 'z'`);
  const [blocker, expiring, other] = [await session(), await session(), await session()];
  await blocker.query('BEGIN');
  await blocker.query(`SELECT FROM hold WHERE account_id = 'z' FOR UPDATE`);
  const first = credit(expiring, ['a', 'z']); // locks z, and waits for its hold
  await until('it waits for the hold', () => isWaiting(expiring));
  await insertAccounts(database, 'a');
  const second = credit(other, ['a', 'z']); // locks a, and waits for z
  await until('the other waits for the account', () => isWaiting(other));
  await blocker.query('COMMIT');
  expect(await first).toEqual(['account_not_found', null]);
  expect(await second).toEqual([null, null]);
});
