// /readyz is 200 exactly where updates of every account can be taken, and says why where it is not.
import { afterEach, expect, it } from 'vitest';
import { startPostgres } from '../../src/local/postgres.ts';
import { openClient } from '../../src/shared/database.ts';
import { startDisposablePostgres } from '../support/backends.ts';
import {
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  insertAccounts,
  onCleanUp,
  send,
  sendPatiently,
  startApiHere,
  until,
  verified,
} from '../support/harness.ts';
import { temporaryFolder } from '../support/local-backend.ts';
import { startReaper } from '../support/reaper.ts';
import { mountSmallDisk } from '../support/small-disk.ts';

afterEach(cleanUp);

const credit = (url: string, accountId: string) =>
  sendPatiently(url, 'POST', '/v1/balance-updates', { accountId, amount: 1 });

const ready = (url: string) =>
  until('it is ready', async () => {
    const { status, body } = await send(url, 'GET', '/readyz');
    return status === 200 && body.reasons === undefined;
  });

/** Waits for 503 with these reasons, in this order, and no others. */
const unready = (url: string, ...reasons: RegExp[]) =>
  until(`it is not ready: ${reasons.join(' ')}`, async () => {
    const { status, body } = await send(url, 'GET', '/readyz');
    const found: string[] = body.reasons ?? [];
    return status === 503 && found.length === reasons.length && reasons.every((one, at) => one.test(found[at] ?? ''));
  });

/** A login of the API with so many connections at most. */
async function limitedTo(
  connections: number,
  database: Database,
): Promise<Database & { limit(connections: number): Promise<unknown> }> {
  const role = `limited_${new URL(database.url).pathname.slice(-8)}`;
  await database.pool.query(
    `CREATE ROLE ${role} LOGIN PASSWORD 'secret' CONNECTION LIMIT ${connections} IN ROLE balance_api`,
  );
  onCleanUp(() => database.pool.query(`DROP ROLE ${role}`));
  const url = new URL(database.url);
  [url.username, url.password] = [role, 'secret'];
  const limit = (most: number) => database.pool.query(`ALTER ROLE ${role} CONNECTION LIMIT ${most}`);
  return { ...database, url: url.href, limit };
}

it('is 503 while a lane has no connection, and says how many and why', async () => {
  const database = await createDatabase();
  const accounts = Array.from({ length: 32 }, (_, index) => `account-${index}`);
  await insertAccounts(database, ...accounts);
  const theirs = await limitedTo(6, database);
  const { url } = await startApiHere(theirs, createBroker(), { LANES: '8', RELAY: 'off' });
  const reason = /^[1-7] of 8 lanes: no connection: too many connections for role "limited_/;
  await until('it says so', async () => {
    const { status, body } = await send(url, 'GET', '/readyz');
    expect(status).toBe(503);
    return body.reasons.some((one: string) => reason.test(one)); // of the few, others may have lost theirs too
  });
  await theirs.limit(20);
  await ready(url);
  const answers = await Promise.all(accounts.map((id) => credit(url, id)));
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
});

it('is 503 where there is no connection left to read with', async () => {
  const database = await createDatabase();
  const theirs = await limitedTo(20, database);
  const { url } = await startApiHere(theirs, createBroker(), { LANES: '1', RELAY: 'off' });
  await ready(url);
  await theirs.limit(1); // the lane's
  await database.pool.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'highload-balance api'`,
  );
  await unready(
    url,
    /^PostgreSQL: unavailable: too many connections for role "limited_/,
    /^no connection for anything but updates: too many connections for role "limited_/,
  );
  await theirs.limit(20);
  await ready(url);
});

it('is 503 once a server is made read-only under it; no connection is used any more, until that is over', async () => {
  const server = await startDisposablePostgres();
  onCleanUp(() => server.stop());
  const database = await createDatabase({ serverUrl: server.url });
  await insertAccounts(database, 'a');
  const { url } = await startApiHere(database, createBroker(), { LANES: '1', RELAY: 'off' });
  const read = () => send(url, 'GET', '/v1/accounts/a');
  const turn = async (value: string) => {
    await database.pool.query(`ALTER SYSTEM SET default_transaction_read_only = ${value}`);
    await database.pool.query('SELECT pg_reload_conf()');
  };
  expect([(await credit(url, 'a')).status, (await read()).status]).toEqual([200, 200]);
  await ready(url);
  const [client, reader] = await Promise.all([
    openClient(database.url, 'test'),
    openClient(database.url, 'test', { access: 'any server' }),
  ]);
  onCleanUp(() => Promise.all([client.end(), reader.end()]));
  await turn('on');
  // What was sent is answered, with the report; only then the connection is lost.
  const one = { rows: [{ one: 1 }] };
  let answers = 0;
  const asking = async () => {
    for (;;) {
      expect(await client.query('SELECT 1 AS one')).toMatchObject(one);
      answers += 1;
    }
  };
  await expect(asking()).rejects.toThrow(/terminated|not queryable/);
  expect(answers).toBeGreaterThan(0);
  for (let round = 0; round < 3; round += 1) expect(await reader.query('SELECT 1 AS one')).toMatchObject(one);
  await unready(
    url,
    /^PostgreSQL: cannot be used: default_transaction_read_only is on, for the server, database or role$/,
  );
  expect((await credit(url, 'a')).body).toMatchObject({ code: 'unavailable' });
  await until('nothing is read', async () => (await read()).status === 503);
  await until('all connections are closed', async () => {
    const { rowCount } = await database.pool.query(
      `SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^highload-balance api'`,
    );
    return rowCount === 0;
  });
  await turn('off');
  await ready(url);
  expect([(await credit(url, 'a')).status, (await read()).body]).toEqual([
    200,
    expect.objectContaining({ balance: 2 }),
  ]);
});

it('is 503 while the disk of PostgreSQL is full, before any update fails and after', async (test) => {
  const reaper = startReaper();
  onCleanUp(() => reaper.close());
  const disk = mountSmallDisk(reaper, 300);
  if (typeof disk === 'string') return test.skip(disk); // the reason: this user may not mount one
  const server = await startPostgres({
    ...{ dir: disk.folder, sharedDir: temporaryFolder(reaper), durable: false },
    onSpawn: (process) => reaper.add({ process }),
  });
  const database = await createDatabase({ serverUrl: server.url });
  await insertAccounts(database, 'a');
  const { url } = await startApiHere(database, createBroker(), { LANES: '1', RELAY: 'off' });
  expect((await credit(url, 'a')).status).toBe(200);
  await ready(url);
  disk.fill();
  const isFull = /^PostgreSQL: cannot write: .*No space left on device/;
  await unready(url, isFull);
  const updates = Array.from({ length: 1000 }, () => ({ accountId: 'a', amount: 1 }));
  const bulk = () => send(url, 'POST', '/v1/balance-updates/bulk', { updates });
  await until('an update finds no room', async () => {
    const { body } = await bulk();
    return body.results.some((result: { code?: string }) => result.code === 'unavailable');
  });
  await unready(url, isFull, /^1 of 1 lanes: the last write failed: .*No space left on device/);
  disk.empty();
  await ready(url);
  expect((await credit(url, 'a')).status).toBe(200);
  expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
});
