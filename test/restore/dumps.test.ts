// Dumps that wait between their snapshot and the outbox, while the relay empties partitions. What
// is restored from each of them is whole.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, expect, it } from 'vitest';
import { openClient } from '../../src/shared/database.ts';
import { verify } from '../../src/shared/verification.ts';
import { cleanUp, pendingChanges, type Spawned, send, until, untilReady } from '../support/harness.ts';
import { endsWithUs } from '../support/reaper.ts';
import { openAccounts } from '../support/traffic.ts';
import { ACCOUNTS, startNewServer } from './arrange.ts';
import { programs, startServer } from './postgres.ts';
import { createSystem, makePlace, setUp } from './system.ts';

const DUMPS = 20;
const UPDATES = 500;
/** So many changes fill a partition of 2 MB in about a second. */
const BULK_EVERY_MS = 100;
/** How long the lock of another session keeps a dump from its next table. */
const HELD_MS = 3000;
const STOPPED_MS = 500;
const WAITING_DUMP = `SELECT FROM pg_locks WHERE relation = 'schemaversion'::regclass AND NOT granted`;

const program = (name: string) => path.join(programs as string, name);

afterEach(cleanUp);

it(`${DUMPS} dumps under load, each held up by a lock`, async () => {
  const place = makePlace();
  const server = await startServer(place.reaper, place.folder, 'server');
  const system = await createSystem(place, server);
  await setUp(server, await system.openShell());
  await system.start();
  await untilReady(system.url);
  await openAccounts(system.url, ACCOUNTS);
  const target = await startNewServer(place);

  let isOver = false;
  let answered = 0;
  const updates = Array.from({ length: UPDATES }, (_, index) => ({
    accountId: ACCOUNTS[index % ACCOUNTS.length],
    amount: 1,
    reference: 'so that it is as long as usual: order 4711 of customer 12',
  }));
  const load = (async () => {
    while (!isOver) {
      const { status } = await send(system.url, 'POST', '/v1/balance-updates/bulk', { updates });
      expect(status).toBe(200);
      answered += UPDATES;
      await delay(BULK_EVERY_MS);
    }
  })();

  const pool = system.openDatabase();
  /** A partition has another file after it was truncated. */
  const files = new Set<string>();
  const noteFiles = async () => {
    const { rows } = await pool.query(
      `SELECT pg_relation_filepath(oid) AS file FROM pg_class WHERE relname ~ '^outbox_(even|odd)$'`,
    );
    for (const { file } of rows) files.add(file);
  };
  const [, worker] = system.processes() as [Spawned, Spawned];
  const holder = await openClient(`${server.url}/balance`, 'test', { access: 'any server' });
  for (let number = 0; number < DUMPS; number += 1) {
    const answeredBefore = answered;
    const file = path.join(place.folder, `dump-${number}`);
    worker.child.kill('SIGSTOP'); // what is in the outbox is in no ledger when the snapshot is taken
    await delay(STOPPED_MS);
    await holder.query('BEGIN');
    await holder.query('LOCK TABLE schemaversion IN ACCESS EXCLUSIVE MODE'); // the first table that is dumped
    const dump = spawn(program('pg_dump'), ['--format=custom', `--file=${file}`, `${server.url}/balance`]);
    endsWithUs(dump);
    const exited = once(dump, 'exit');
    await until('the dump waits', async () => (await pool.query(WAITING_DUMP)).rows.length > 0);
    worker.child.kill('SIGCONT');
    await delay(HELD_MS);
    expect(dump.exitCode).toBeNull();
    await holder.query('COMMIT');
    expect(await exited).toEqual([0, null]);
    await noteFiles();

    const name = `copy_${number}`;
    const superuser = await openClient(`${target}/postgres`, 'test', { access: 'any server' });
    await superuser.query(`CREATE DATABASE ${name}`);
    execFileSync(program('pg_restore'), ['--no-owner', '--no-privileges', `--dbname=${target}/${name}`, file]);
    const restored = await openClient(`${target}/${name}`, 'test', { access: 'any server' });
    const found = await verify(restored);
    expect(found).toMatchObject({ accounts: ACCOUNTS.length, offendingAccounts: 0, offenders: [] });
    expect(found.pendingChanges).toBeGreaterThan(0);
    expect(found.ledgerEntries + found.pendingChanges).toBeGreaterThanOrEqual(answeredBefore);
    await restored.end();
    await superuser.query(`DROP DATABASE ${name}`);
    await superuser.end();
  }
  await holder.end();
  isOver = true;
  await load;
  expect(files.size).toBeGreaterThan(4); // the relay did empty partitions
  await until('the ledger is complete', async () => (await pendingChanges({ pool, url: '' })) === 0);
});
