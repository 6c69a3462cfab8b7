// What a new relay does first: it continues where the last one was, at any size of the outbox, and
// finds what was never seen.
import { afterEach, beforeEach, expect, it } from 'vitest';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  insertAccounts,
  ledgerRows,
  recordDirectly,
  startApiHere,
  startWorkerHere,
  subscribe,
  until,
  verified,
} from '../support/harness.ts';

let database: Database;
let broker: Broker;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
  await insertAccounts(database, 'a');
});
afterEach(cleanUp);

const noteAll = () =>
  database.pool.query(
    `INSERT INTO relay_progress (track, position)
     SELECT track, max(position) FROM outbox CROSS JOIN unnest(ARRAY['ledger', 'subscribers']) AS track GROUP BY track`,
  );
it('publishes at once what is new, before it has looked through what a long backup has kept in the outbox', async () => {
  const KEPT = 100;
  await applyDirectly(database.pool, 'a', 1, KEPT);
  await recordDirectly(database, 'a', 0, KEPT);
  await noteAll();
  await applyDirectly(database.pool, 'a', 1);
  const received = await subscribe(broker);
  const lock = await database.pool.connect();
  try {
    await lock.query('BEGIN; LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE'); // no look can end
    await startApiHere(database, broker);
    await until('it arrived', () => received.length > 0, 8000);
  } finally {
    await lock.query('ROLLBACK');
    lock.release();
  }
  expect(received.map(({ body }) => body.data.version)).toEqual([KEPT + 1]);
  await startWorkerHere(database, broker);
  expect(await drained(database)).toMatchObject({ ledgerEntries: KEPT + 2, offendingAccounts: 0 });
});

// As after a move by logical replication, which copies no sequence: the new server gives positions
// again.
it.each([
  ['while nothing relays', false],
  ['under an active relay', true],
])('loses nothing where the sequence falls behind the outbox %s', async (_when, isActive) => {
  const CHANGES = 30_000;
  const received = new Set<string>();
  const all = await subscribe(broker);
  let first: Awaited<ReturnType<typeof startApiHere>> | undefined;
  if (isActive) {
    first = await startApiHere(database, broker, { SNAPSHOT_PATIENCE_MS: '1000' });
    await startWorkerHere(database, broker);
  }
  await applyDirectly(database.pool, 'a', 1, 100);
  if (isActive) await drained(database);
  else {
    await recordDirectly(database, 'a', 0, 100);
    await noteAll();
  }
  await database.pool.query(`SELECT setval('outbox_position', 1000000)`);
  await applyDirectly(database.pool, 'a', 1, 50);
  if (isActive) await drained(database);
  else {
    await recordDirectly(database, 'a', 101, 150);
    await noteAll();
  }
  await database.pool.query(`SELECT setval('outbox_position', 200)`);
  for (let done = 0; done < CHANGES; done += 10_000) await applyDirectly(database.pool, 'a', 1, 10_000);
  if (!isActive) {
    await startApiHere(database, broker, { SNAPSHOT_PATIENCE_MS: '1000' });
    await startWorkerHere(database, broker);
  }
  expect(await drained(database)).toMatchObject({ ledgerEntries: CHANGES + 151, offendingAccounts: 0 });
  await until('the subscriber has them', () => {
    for (const { messageId } of all.splice(0)) received.add(messageId);
    return received.size >= CHANGES;
  });
  await until('the outbox was truncated', async () => {
    const { rows } = await database.pool.query('SELECT count(*) AS count FROM outbox');
    return rows[0].count < CHANGES;
  });
  expect(await verified(database)).toMatchObject({ ledgerEntries: CHANGES + 151, offendingAccounts: 0 });
  await first?.stop();
});

it('finds a change that commits below what was noted, after it has looked there', async () => {
  await insertAccounts(database, 'b', 'c');
  await applyDirectly(database.pool, 'a', 1, 100);
  await database.pool.query(`SELECT setval('outbox_position', 1000000)`);
  await applyDirectly(database.pool, 'a', 1, 10);
  await recordDirectly(database, 'a', 0, 110);
  for (const id of ['b', 'c']) await recordDirectly(database, id, 0, 0);
  await noteAll();
  await database.pool.query(`SELECT setval('outbox_position', 200)`);
  await applyDirectly(database.pool, 'b', 1);
  const late = await database.pool.connect();
  try {
    await late.query('BEGIN');
    await applyDirectly(late, 'c', 1);
    await startApiHere(database, broker);
    await startWorkerHere(database, broker);
    await until('it has looked', async () => (await ledgerRows(database)) === 114);
    await late.query('COMMIT');
  } finally {
    late.release();
  }
  expect(await drained(database)).toMatchObject({ ledgerEntries: 115, offendingAccounts: 0 });
});
