// How a connection begins: each setting, environment variable and form of the URL that was seen to
// do harm, alone.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it, vi } from 'vitest';
import { createPool, openClient } from '../../src/shared/database.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { UnfitServer } from '../../src/shared/session-settings.ts';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  createFolder,
  type Database,
  drained,
  environmentOf,
  onCleanUp,
  send,
  sendPatiently,
  spawnProcess,
  startApiHere,
  startWorkerHere,
  subscribe,
  until,
  withParameter,
} from '../support/harness.ts';

let database: Database;
let name: string;
let admin: pg.Client;

beforeAll(async () => {
  admin = new pg.Client(inject('postgresUrl'));
  await admin.connect();
  onCleanUp(() => admin.end());
});
beforeEach(async () => {
  database = await createDatabase();
  name = new URL(database.url).pathname.slice(1);
});
afterAll(cleanUp);

const setForAll = (setting: string, value: string) =>
  admin.query(`ALTER DATABASE ${name} SET ${setting} = ${pg.escapeLiteral(value)}`);

/** A login role that may do everything; dropped again. */
async function createRole(password = 'secret'): Promise<{ role: string; url: URL }> {
  const role = `role_${randomUUID().slice(0, 8)}`;
  await admin.query(`CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD ${pg.escapeLiteral(password)}`);
  onCleanUp(() => admin.query(`DROP ROLE ${role}`));
  const url = new URL(database.url);
  url.username = role;
  url.password = password;
  return { role, url };
}

describe('settings of the database', () => {
  it.each(['SQL, DMY', 'German', 'Postgres, MDY'])('leave dates readable with DateStyle %s', async (style) => {
    await setForAll('datestyle', style);
    const broker = createBroker();
    const received = await subscribe(broker);
    const { url } = await startApiHere(database, broker);
    await startWorkerHere(database, broker);
    await createAccount(url, 'alice');
    const answer = await send(url, 'POST', '/v1/balance-updates', { accountId: 'alice', amount: 3 });
    expect(answer).toMatchObject({
      status: 200,
      body: {
        balance: 3,
        version: 1,
        eventId: expect.stringMatching(/^alice:1:/),
        createdAt: expect.stringMatching(/^20\d\d-\d\d-\d\dT.*Z$/),
      },
    });
    await send(url, 'POST', '/v1/balance-updates', { accountId: 'alice', amount: 4 });
    expect(await drained(database, 20_000)).toMatchObject({ ledgerEntries: 3, offendingAccounts: 0 });
    await until('all events arrived', () => received.length >= 3);
  });

  it('let nobody fail on a busy account where transactions are serializable by default', async () => {
    await setForAll('default_transaction_isolation', 'serializable');
    const { url } = await startApiHere(database, createBroker(), { RELAY: 'off' });
    await createAccount(url, 'busy');
    let busy = true;
    const updating = Array.from({ length: 8 }, async () => {
      while (busy) await send(url, 'POST', '/v1/balance-updates', { accountId: 'busy', amount: 1 });
    });
    const statuses = new Set<number>();
    for (let round = 0; round < 50; round += 1) {
      const status = round % 2 === 0 ? 'frozen' : 'open';
      statuses.add((await sendPatiently(url, 'PATCH', '/v1/accounts/busy', { status })).status);
    }
    busy = false;
    await Promise.all(updating);
    for (let round = 0; round < 20; round += 1) {
      const body = { id: `created-${round}` };
      const all = await Promise.all(Array.from({ length: 8 }, () => sendPatiently(url, 'POST', '/v1/accounts', body)));
      for (const answer of all) statuses.add(answer.status);
    }
    expect([...statuses].sort()).toEqual([200, 201]);
  });
});

describe('settings of the role', () => {
  it('do not cut the wait for a locked account short', async () => {
    const { role, url: roleUrl } = await createRole();
    await admin.query(`ALTER ROLE ${role} SET lock_timeout = '50ms'`);
    const { url } = await startApiHere({ ...database, url: roleUrl.href }, createBroker(), {
      RELAY: 'off',
      LANES: '1',
    });
    await createAccount(url, 'held');
    const holder = await database.pool.connect();
    await holder.query(`BEGIN; SELECT FROM account WHERE account_id = 'held' FOR UPDATE`);
    const answers = [1, 2, 3].map(() => send(url, 'POST', '/v1/balance-updates', { accountId: 'held', amount: 1 }));
    await delay(500);
    await holder.query('COMMIT');
    holder.release();
    expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([200, 200, 200]);
  });

  it('do not make a commit less durable', async () => {
    const { role, url: roleUrl } = await createRole();
    await admin.query(`ALTER ROLE ${role} SET synchronous_commit = off`);
    // Each session writes down how it commits.
    await database.pool.query(`
      CREATE TABLE commits (service text, mode text);
      CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO commits VALUES (current_setting('application_name'), current_setting('synchronous_commit'));
        RETURN NULL;
      END $$;
      CREATE TRIGGER note AFTER INSERT ON account FOR EACH STATEMENT EXECUTE FUNCTION note();
      CREATE TRIGGER note AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION note();
      CREATE TRIGGER note AFTER INSERT ON ledger FOR EACH STATEMENT EXECUTE FUNCTION note();`);
    const theirs = { ...database, url: roleUrl.href };
    const broker = createBroker();
    const { url } = await startApiHere(theirs, broker);
    await startWorkerHere(theirs, broker);
    await createAccount(url, 'alice', 5);
    await drained(database);
    const { rows } = await database.pool.query('SELECT DISTINCT service, mode FROM commits ORDER BY service');
    expect(rows).toEqual(
      ['api', 'api updates', 'worker'].map((service) => ({ service: `highload-balance ${service}`, mode: 'on' })),
    );
  });
});

describe('the shell', () => {
  it('sends no process to another schema by PGOPTIONS', async () => {
    await database.pool.query('CREATE SCHEMA app2');
    const other = new URL(database.url);
    other.searchParams.set('options', '-c search_path=app2');
    await migrate(other.href);
    const environment = { ...environmentOf(database, createBroker()), PGOPTIONS: '-c search_path=app2', LANES: '1' };
    const api = await spawnProcess('api', { ...environment, PORT: '0' });
    const url = api.url();
    await createAccount(url, 'alice');
    expect((await send(url, 'POST', '/v1/balance-updates', { accountId: 'alice', amount: 1 })).status).toBe(200);
    const rows = async (schema: string) => (await database.pool.query(`SELECT FROM ${schema}.account`)).rowCount;
    expect([await rows('public'), await rows('app2')]).toEqual([1, 0]);
    api.child.kill();
  });
});

describe('a connection', () => {
  it('raises how durable a commit is, and never lowers it', async () => {
    const mode = async () => {
      const client = await openClient(database.url, 'test');
      const { rows } = await client.query('SHOW synchronous_commit');
      await client.end();
      return rows[0].synchronous_commit;
    };
    for (const [set, expected] of [
      ['off', 'on'],
      ['local', 'on'],
      ['remote_write', 'on'],
      ['on', 'on'],
      ['remote_apply', 'remote_apply'],
    ] as const) {
      await setForAll('synchronous_commit', set);
      expect(await mode(), set).toBe(expected);
    }
  });

  it('is refused by a server that takes no changes, unless it only reads', async () => {
    await setForAll('default_transaction_read_only', 'on');
    await expect(openClient(database.url, 'test')).rejects.toThrow(/default_transaction_read_only is on/);
    const pool = createPool(database.url, 'test', 2, 1000);
    onCleanUp(() => pool.end());
    await expect(Promise.all([1, 2, 3].map(() => pool.query('SELECT 1')))).rejects.toThrow(UnfitServer);
    const reader = await openClient(database.url, 'test', { access: 'any server' });
    onCleanUp(() => reader.end());
    // The pool recovers by itself.
    await setForAll('default_transaction_read_only', 'off');
    expect((await pool.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  });

  it('is refused where no trigger and no foreign key is checked', async () => {
    await setForAll('session_replication_role', 'replica');
    await expect(openClient(database.url, 'test')).rejects.toThrow(/session_replication_role is replica/);
  });

  it('is refused by a database that cannot hold every text', async () => {
    const other = `${name}_latin1`;
    await admin.query(`CREATE DATABASE ${other} TEMPLATE template0 ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'`);
    onCleanUp(() => admin.query(`DROP DATABASE ${other} WITH (FORCE)`));
    const url = new URL(database.url);
    url.pathname = `/${other}`;
    await expect(openClient(url.href, 'test')).rejects.toThrow(/encoded in LATIN1/);
  });

  it('is given up with its signal, also where the server says nothing', async () => {
    const silent = createServer((socket) => socket.resume());
    silent.listen(0, '127.0.0.1');
    await once(silent, 'listening');
    onCleanUp(async () => silent.close());
    const { port } = silent.address() as AddressInfo;
    const startedAtMs = performance.now();
    const opening = openClient(`postgres://u:p@127.0.0.1:${port}/d`, 'test', {}, AbortSignal.timeout(200));
    await expect(opening).rejects.toThrow(/terminated/);
    expect(performance.now() - startedAtMs).toBeLessThan(15_000);
  });

  it('takes a password from PGPASSWORD or PGPASSFILE where the URL has none', async () => {
    const { role, url } = await createRole('from elsewhere');
    url.password = '';
    const login = async () => (await openClient(url.href, 'test')).end();
    vi.stubEnv('PGPASSWORD', 'from elsewhere');
    await login();
    vi.unstubAllEnvs();
    const folder = await createFolder();
    const file = path.join(folder, 'passwords');
    writeFileSync(file, `*:*:*:${role}:from elsewhere\n`, { mode: 0o600 });
    vi.stubEnv('PGPASSFILE', file);
    await login();
    vi.stubEnv('PGPASSFILE', '/nowhere');
    await expect(login()).rejects.toThrow(/password/);
    vi.unstubAllEnvs();
  });
});

describe('without a connection', () => {
  it('an update is unavailable, never overloaded', async () => {
    // Takes connections and says nothing: the lane waits for it while its queue fills.
    const silent = createServer((socket) => onCleanUp(async () => socket.destroy()));
    silent.listen(0, '127.0.0.1');
    await once(silent, 'listening');
    onCleanUp(async () => silent.close());
    const { port } = silent.address() as AddressInfo;
    const nowhere = { ...database, url: `postgres://u:p@127.0.0.1:${port}/d` };
    const { url } = await startApiHere(nowhere, createBroker(), {
      ...{ RELAY: 'off', LANES: '1', QUEUE_WAIT_MAX_MS: '50', QUEUE_ROWS_MAX: '20' },
    });
    const answers: Promise<{ status: number; body: { code: string } }>[] = [];
    for (let round = 0; round < 20; round += 1) {
      for (let count = 0; count < 5; count += 1) {
        answers.push(send(url, 'POST', '/v1/balance-updates', { accountId: 'alice', amount: 1 }));
      }
      await delay(20);
    }
    const codes = (await Promise.all(answers)).map(({ body }) => body.code);
    expect(new Set(codes)).toEqual(new Set(['unavailable']));
  });
});

describe('the URL', () => {
  it('is read the same by pools and lanes, with a raw space beside an encoded slash', async () => {
    const { role } = await createRole('a/b c%d');
    const { host } = new URL(database.url);
    const odd = `postgres://${role}:a%2Fb c%d@${host}/${name}`;
    const { url } = await startApiHere({ ...database, url: odd }, createBroker(), { RELAY: 'off' });
    await createAccount(url, 'alice');
    expect((await send(url, 'POST', '/v1/balance-updates', { accountId: 'alice', amount: 1 })).status).toBe(200);
  });

  it.each(['options=-c%20search_path%3Dapp2', 'options=-c search_path=app2', 'search_path=app2'])(
    'chooses the schema of everything with %s',
    async (parameter) => {
      await database.pool.query('CREATE SCHEMA app2');
      const theirs = { ...database, url: withParameter(database.url, parameter) };
      await migrate(theirs.url);
      const broker = createBroker();
      const { url } = await startApiHere(theirs, broker);
      await startWorkerHere(theirs, broker);
      await createAccount(url, 'alice', 5);
      const recorded = async (schema: string) => (await database.pool.query(`SELECT FROM ${schema}.ledger`)).rowCount;
      await until('the ledger has the entries', async () => (await recorded('app2')) === 2, 20_000);
      expect(await recorded('public')).toBe(0);
    },
  );
});
