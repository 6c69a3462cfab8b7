// The outbox is emptied by truncating partitions: it stays small whatever snapshot a session holds,
// and loses nothing.
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openClient } from '../../src/shared/database.ts';
import {
  applyDirectly,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  insertAccounts,
  onCleanUp,
  send,
  startApiHere,
  startWorkerHere,
  until,
  verified,
} from '../support/harness.ts';

/** Well over what makes a partition worth truncating. */
const CHANGES = 30_000;
/** Entries of the openings of both accounts. */
const OPENINGS = 2;
const BATCH = 1000;
/** The partition that is written to may have 2 MiB, and its indexes. */
const SMALL_BYTES = 4 * 1024 * 1024;
const GROWN_BYTES = 5 * 1024 * 1024;

/** With transactions that are no dump. */
const PATIENCE_MS = 3000;

let database: Database;
let url: string;

beforeEach(async () => {
  database = await createDatabase();
  const broker = createBroker();
  ({ url } = await startApiHere(database, broker, { SNAPSHOT_PATIENCE_MS: String(PATIENCE_MS) }));
  await startWorkerHere(database, broker);
  await insertAccounts(database, 'a', 'b');
});
afterEach(cleanUp);

async function session(): Promise<pg.Client> {
  const client = await openClient(database.url, 'test session');
  onCleanUp(() => client.end());
  return client;
}

async function applyMany(changes: number): Promise<void> {
  const { pool } = database;
  for (let done = 0; done < changes; done += BATCH) {
    await applyDirectly(pool, 'a', 1, BATCH);
  }
}

async function outboxBytes(): Promise<number> {
  const { rows } = await database.pool.query(
    `SELECT pg_total_relation_size('outbox_even') + pg_total_relation_size('outbox_odd') AS bytes`,
  );
  return rows[0].bytes;
}

it('is small again after a burst and some patience, although a session holds a snapshot from before it', async () => {
  const holder = await session();
  await holder.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await holder.query('SELECT count(*) FROM account');
  await applyMany(CHANGES);
  expect(await outboxBytes()).toBeGreaterThan(GROWN_BYTES); // else there is nothing to show
  expect(await drained(database)).toMatchObject({ ledgerEntries: OPENINGS + CHANGES, offendingAccounts: 0 });
  await until('the outbox is small', async () => (await outboxBytes()) <= SMALL_BYTES);
  expect(await verified(database)).toMatchObject({
    ledgerEntries: OPENINGS + CHANGES,
    pendingChanges: 0,
    offendingAccounts: 0,
  });
});

it('verifies at every instant while partitions are truncated', async () => {
  const truncated = new AbortController();
  const proving = (async () => {
    while (!truncated.signal.aborted) {
      const startedAt = performance.now();
      expect((await verified(database)).offenders).toEqual([]);
      // A proof holds off truncation, and the relay tries again only every few seconds: it has to
      // find a moment without.
      const pauseMs = 9 * (performance.now() - startedAt);
      await delay(pauseMs, undefined, { signal: truncated.signal }).catch(() => {});
    }
  })();
  proving.catch(() => {}); // its failure is reported below, after the clean-up that it needs
  try {
    await applyMany(CHANGES);
    await drained(database);
    await until('a partition was truncated', async () => (await outboxBytes()) <= SMALL_BYTES, 40_000);
  } finally {
    truncated.abort();
    await proving;
  }
});

it('waits with truncation for a reader, without stopping updates or events', async () => {
  const reader = await session();
  await reader.query('BEGIN');
  await reader.query('SELECT count(*) FROM outbox'); // holds the partitions, as pg_dump does
  await applyMany(CHANGES);
  await drained(database);
  await until('truncation was tried', async () => {
    const { rows } = await database.pool.query(
      `SELECT 1 FROM pg_stat_activity WHERE application_name = 'highload-balance relay' AND query LIKE '%truncate_outbox%'`,
    );
    return rows.length > 0;
  });
  for (let count = 0; count < 50; count += 1) {
    const startedAt = performance.now();
    await applyDirectly(database.pool, 'b', 1);
    expect(performance.now() - startedAt).toBeLessThan(4000);
  }
  expect(await drained(database)).toMatchObject({ ledgerEntries: OPENINGS + CHANGES + 50, offendingAccounts: 0 });
  expect(await outboxBytes()).toBeGreaterThan(GROWN_BYTES);
  await reader.query('COMMIT');
  await until('the outbox is small', async () => (await outboxBytes()) <= SMALL_BYTES);
});

it('keeps for a dump, which takes its snapshot before its locks, what the ledger lacks in it', async () => {
  const dump = await session();
  await dump.query(`SET application_name = 'pg_dump'`);
  await applyMany(BATCH);
  await dump.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  const seen = (await dump.query(`SELECT version FROM account WHERE account_id = 'a'`)).rows[0].version;
  await applyMany(CHANGES);
  await drained(database);
  await until('any other transaction would be waited for no longer', async () => {
    const { truncation } = (await send(url, 'GET', '/readyz')).body.relay;
    return truncation?.waitsForMs > PATIENCE_MS + 1000;
  });
  const { rows } = await dump.query(
    `SELECT count(*) AS count FROM (SELECT version FROM ledger WHERE account_id = 'a' UNION SELECT version FROM outbox WHERE account_id = 'a') entry`,
  );
  expect(rows[0].count).toBe(seen + 1);
  expect(await outboxBytes()).toBeGreaterThan(GROWN_BYTES);
  await dump.query('COMMIT');
  await until('the outbox is small', async () => (await outboxBytes()) <= SMALL_BYTES);
});

it('keeps a change that commits after everything around it was recorded', async () => {
  const late = await session();
  await late.query('BEGIN');
  await applyDirectly(late, 'b', 1);
  await applyMany(CHANGES);
  await until('the others are recorded', async () => {
    const { rows } = await database.pool.query('SELECT count(*) AS count FROM ledger');
    return rows[0].count === OPENINGS + CHANGES;
  });
  await late.query('COMMIT');
  expect(await drained(database)).toMatchObject({ ledgerEntries: OPENINGS + CHANGES + 1, offendingAccounts: 0 });
  await until('the outbox is small', async () => (await outboxBytes()) <= SMALL_BYTES);
  expect(await verified(database)).toMatchObject({ ledgerEntries: OPENINGS + CHANGES + 1, offendingAccounts: 0 });
});

it('does not publish again at a restart what an earlier relay had seen recorded', async () => {
  await cleanUp();
  database = await createDatabase();
  const broker = createBroker();
  await insertAccounts(database, 'a');
  const first = await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  await applyMany(BATCH);
  await drained(database);
  await until('the progress is noted', async () => {
    const { rows } = await database.pool.query(
      `SELECT max(position) AS position FROM relay_progress WHERE track = 'ledger'`,
    );
    return rows[0].position > BATCH; // the opening came first
  });
  await first.stop();
  const second = await startApiHere(database, broker);
  const relay = async () => (await send(second.url, 'GET', '/readyz')).body.relay;
  await until('the second is active', async () => (await relay()).active);
  await applyMany(BATCH);
  await drained(database);
  expect((await relay()).ledger.confirmed).toBe(BATCH);
});
