// What a new relay does first, and what it does not leave behind: on a database alone, without a broker.
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { startPosition, truncateRecorded } from '../../src/api/relay/outbox.ts';
import { openClient } from '../../src/shared/database.ts';
import {
  applyDirectly,
  cleanUp,
  createDatabase,
  type Database,
  insertAccounts,
  onCleanUp,
  recordDirectly,
  until,
} from '../harness.ts';

/** After the opening. More than are looked up in one statement, and enough for a partition to be worth truncating. */
const CHANGES = 40_000;

let database: Database;
let client: pg.Client;
const signal = new AbortController().signal;

beforeEach(async () => {
  database = await createDatabase();
  client = await openClient(database.url, 'test', { plans: 'indexed plans' });
  onCleanUp(() => client.end());
  await insertAccounts(database, 'a');
  await applyDirectly(database.pool, 'a', 1, CHANGES);
  await recordDirectly(database, 'a', 0, CHANGES - 1);
  await database.pool.query(`INSERT INTO relay_progress (track, position) SELECT 'ledger', max(position) FROM outbox`);
});
afterEach(cleanUp);

const last = async () => (await database.pool.query('SELECT max(position) AS position FROM outbox')).rows[0].position;

it('begins at what was noted when the ledger has all below, and at the beginning when it lacks the last', async () => {
  expect(await startPosition(client, signal)).toBe(0);
  await recordDirectly(database, 'a', CHANGES, CHANGES);
  expect(await startPosition(client, signal)).toBe(await last());
});

it('looks up in small statements what a long backup has kept in the outbox', async () => {
  await recordDirectly(database, 'a', CHANGES, CHANGES);
  const examined: number[] = [];
  const query = client.query;
  client.query = (async (...parameters: unknown[]) => {
    const result = await (query as (...parameters: unknown[]) => Promise<pg.QueryResult>).apply(client, parameters);
    if (result.rows[0]?.examined !== undefined) examined.push(result.rows[0].examined);
    return result;
  }) as typeof query;
  expect(await startPosition(client, signal)).toBe(await last());
  expect(Math.max(...examined)).toBeLessThanOrEqual(5000);
  expect(examined.reduce((sum, rows) => sum + rows, 0)).toBe(CHANGES + 1);
});

it('holds up nobody for long when it freezes with the lock of a truncation', async () => {
  await database.pool.query('DELETE FROM relay_progress');
  const query = client.query;
  let isFrozen = false;
  client.query = (async (...parameters: unknown[]) => {
    if (String(parameters[0]).startsWith('TRUNCATE')) {
      isFrozen = true;
      await delay(8000);
    }
    return (query as (...parameters: unknown[]) => Promise<unknown>).apply(client, parameters);
  }) as typeof query;
  const truncating = truncateRecorded(client, await last()).catch(() => 'its connection was ended');
  await until('it is frozen', () => isFrozen);
  const startedAtMs = performance.now();
  await database.pool.query('SELECT count(*) FROM outbox'); // waits for the lock
  expect(performance.now() - startedAtMs).toBeLessThan(5000);
  expect(await truncating).toBe('its connection was ended');
});

it('has the server look whether its machine is still there', async () => {
  const { rows } = await client.query(`SELECT current_setting('tcp_keepalives_idle') AS idle,
    current_setting('tcp_keepalives_count') AS count, current_setting('tcp_user_timeout') AS timeout`);
  expect(rows).toEqual([{ idle: '10', count: '4', timeout: '30000' }]);
});
