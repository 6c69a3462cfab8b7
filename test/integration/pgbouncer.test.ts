// PgBouncer before PostgreSQL. In session mode it is like no pooler at all; in transaction and
// statement mode everything refuses it with a sentence, before it leaves a setting in a session of
// another client.
import pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Client, openClient, openPool } from '../../src/shared/database.ts';
import { UnfitServer } from '../../src/shared/session-settings.ts';
import { startProxy } from '../chaos/proxy.ts';
import { runCommand } from '../support/commands.ts';
import {
  addressesOf,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  environmentOf,
  insertAccounts,
  onCleanUp,
  send,
  spawnProcess,
  startApiHere,
  startWorkerHere,
  until,
  withParameter,
} from '../support/harness.ts';
import { needing } from '../support/needing.ts';
import { type PoolMode, pgbouncer, startPgbouncer } from '../support/pgbouncer.ts';

const SENTENCE =
  /it is behind a pooler that gives each transaction a different session, .*: connect directly, or .* session mode .* again/;

let database: Database;
let broker: Broker;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
});
afterEach(cleanUp);

let attempts = 0;

/** By a URL of its own: a process remembers of each what it leads to. */
async function open(poolUrl: string): Promise<Client> {
  const url = new URL(poolUrl);
  url.searchParams.set('attempt', String(attempts++));
  const client = await openClient(url.href, 'test', { plans: 'fixed plans', statementTimeoutMs: 10_000 });
  onCleanUp(() => client.end());
  return client;
}

/** A rival that gets no session within so long says nothing (docs/decisions/026-poolers.md). */
const TRIAL_MS = 1000;
const TRIES = 5;

/** Where the pooler has to be found out: tries again after a trial that a busy machine made too long to say anything. */
async function expectRefused(url: string): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    const startedAtMs = performance.now();
    const opened = await open(url).catch((error: Error) => error);
    const isInconclusive = !(opened instanceof Error) && performance.now() - startedAtMs > TRIAL_MS;
    if (isInconclusive && tries < TRIES) continue;
    expect(opened).toMatchObject({ message: expect.stringMatching(SENTENCE) });
    return;
  }
}

/** A client that prepares nothing, as those of others. */
async function openPlain(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  onCleanUp(() => client.end());
  return client;
}

/** Runs statements of others over the pool until the end of the test. */
async function keepBusy(url: string, count: number): Promise<void> {
  let isOver = false;
  const clients = await Promise.all(Array.from({ length: count }, () => openPlain(url)));
  const working = clients.map(async (client) => {
    while (!isOver) await client.query('SELECT pg_sleep(random() / 500)');
  });
  onCleanUp(() => {
    isOver = true;
    return Promise.all(working);
  });
}

const withPgbouncer = needing('PgBouncer: apt-get install pgbouncer', pgbouncer !== undefined);

withPgbouncer.describe('a pool in session mode', () => {
  it('serves the whole system without settings of its own', async () => {
    const empty = await createDatabase({ migrated: false });
    const url = await startPgbouncer(empty.url, 'session', ['default_pool_size = 30']);
    const way = { url, pool: empty.pool };
    const run = (...args: string[]) => runCommand(args, addressesOf(way, broker));
    expect(await run('migrate')).toMatchObject({ code: 0, err: '' });
    await insertAccounts(empty, 'a');
    const api = await startApiHere(way, broker);
    await startWorkerHere(way, broker);
    await until('it is ready', async () => (await send(api.url, 'GET', '/readyz')).status === 200);
    for (let count = 0; count < 50; count += 1) {
      const { status } = await send(api.url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
      expect(status).toBe(200);
    }
    expect(await drained(empty)).toMatchObject({ ledgerEntries: 51, offendingAccounts: 0 });
    expect(await run('verify')).toMatchObject({ code: 0, out: expect.stringContaining('\nverified\n') });
    expect(await run('keys', 'create', 'client', '--scopes', 'read')).toMatchObject({ code: 0 });
    expect(await run('heads')).toMatchObject({ code: 0, err: '' });
  });

  it('gives a session that others used before as if it were new', async () => {
    const url = await startPgbouncer(database.url, 'session', ['default_pool_size = 1']);
    const other = await openPlain(url);
    const pid = async (client: Pick<pg.Client, 'query'>) =>
      (await client.query('SELECT pg_backend_pid() AS pid')).rows[0].pid;
    const before = await pid(other);
    await other.query(`SET array_nulls = off; SET "DateStyle" = 'German'; SET search_path = nowhere`);
    await other.query('SELECT pg_advisory_lock(1)');
    await other.end();
    const client = await open(url);
    expect(await pid(client)).toBe(before);
    const { rows } = await client.query(
      `SELECT current_setting('array_nulls') AS nulls, current_setting('DateStyle') AS style,
              current_setting('plan_cache_mode') AS plans, to_regclass('account') IS NOT NULL AS "isFound",
              (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks`,
    );
    expect(rows[0]).toEqual({ nulls: 'on', style: 'ISO, MDY', plans: 'force_generic_plan', isFound: true, locks: 0 });
  });

  it('is never taken for another mode, however full it is and however many come and go', async () => {
    const url = await startPgbouncer(database.url, 'session', ['default_pool_size = 12']);
    const comeAndGo = async () => {
      for (let count = 0; count < 5; count += 1) {
        const client = await openClient(url, 'test');
        await client.query('SELECT pg_sleep(random() / 100)');
        await client.end();
      }
    };
    const pool = openPool(url, 'test', 4, {});
    onCleanUp(() => pool.end());
    const reads = Array.from({ length: 100 }, () => pool.query('SELECT 1'));
    await Promise.all([...reads, ...Array.from({ length: 8 }, comeAndGo)]);
    await Promise.all(Array.from({ length: 12 - pool.totalCount }, () => open(url)));
    await pool.query('SELECT 1');
  });

  it('hands the lock of a killed relay to the next one', async () => {
    const url = await startPgbouncer(database.url, 'session', ['default_pool_size = 40']);
    await insertAccounts(database, 'a');
    const environment = environmentOf({ url, pool: database.pool }, broker);
    const first = await spawnProcess('api', environment);
    const isActive = async (base: string) => (await send(base, 'GET', '/readyz')).body.relay.active;
    await until('the first is active', () => isActive(first.url()));
    const second = await spawnProcess('api', environment);
    expect(await isActive(second.url())).toBe(false);
    await first.kill();
    await until('the second is active', () => isActive(second.url()), 15_000);
  });

  it('refuses options in the URL, and the sentence says what to do', async () => {
    const url = await startPgbouncer(database.url, 'session');
    const { code, err } = await runCommand(['verify'], { DATABASE_URL: withParameter(url, 'options=-c%20geqo%3Doff') });
    expect(code).toBe(1);
    expect(err).toMatch(
      /unsupported startup parameter: options: the pooler does not pass on options; remove them from/,
    );
    const withPath = await open(withParameter(url, 'search_path=pg_catalog'));
    expect((await withPath.query('SHOW search_path')).rows).toEqual([{ search_path: 'pg_catalog' }]);
  });
});

for (const mode of ['transaction', 'statement'] satisfies PoolMode[]) {
  withPgbouncer.describe(`a pool in ${mode} mode`, () => {
    it('is refused by API, worker and every command', async () => {
      const url = await startPgbouncer(database.url, mode);
      const way = { url, pool: database.pool };
      await insertAccounts(database, 'a');
      const api = await startApiHere(way, broker);
      const worker = await startWorkerHere(way, broker, { HEALTH_PORT: '0', HEALTH_HOST: '127.0.0.1' });
      const { status, body } = await send(api.url, 'GET', '/readyz');
      expect({ status, relay: body.relay.active }).toEqual({ status: 503, relay: false });
      const isSaid = expect.stringMatching(SENTENCE);
      expect(body.reasons).toEqual(expect.arrayContaining([expect.stringMatching(/^PostgreSQL: cannot be used/)]));
      expect(body.reasons).toEqual(body.reasons.map(() => isSaid));
      const health = await send(`http://127.0.0.1:${worker.healthPort}`, 'GET', '/readyz');
      expect(health).toMatchObject({ status: 503, body: { database: isSaid } });
      const update = await send(api.url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
      expect(update).toMatchObject({ status: 503, body: { code: 'unavailable' } });
      for (const args of [
        ['migrate'],
        ['verify'],
        ['heads'],
        ['keys', 'list'],
        ['restored'],
        ['subscribers', 'list'],
      ]) {
        const ended = await runCommand(args, addressesOf(way, broker));
        expect(ended, args.join(' ')).toMatchObject({ code: 1, out: '', err: expect.stringMatching(SENTENCE) });
      }
    });

    it('is named in the logs of API and worker', async () => {
      const url = await startPgbouncer(database.url, mode);
      for (const service of ['api', 'worker'] as const) {
        const spawned = await spawnProcess(service, environmentOf({ url, pool: database.pool }, broker));
        await until(`the ${service} says so`, () => SENTENCE.test(spawned.output()));
      }
    });

    it('is refused before a setting is left in a session of others', async () => {
      const url = await startPgbouncer(database.url, mode, ['default_pool_size = 1']);
      const client = await openPlain(url);
      // PgBouncer itself keeps these two as each client has them.
      const settings = `SELECT name, setting FROM pg_settings
      WHERE source = 'session' AND name NOT IN ('application_name', 'client_encoding')`;
      await expect(open(url)).rejects.toThrow(UnfitServer);
      expect((await client.query(settings)).rows).toEqual([]);
      await client.query('SET geqo = off');
      expect((await client.query(settings)).rows).toEqual([{ name: 'geqo', setting: 'off' }]);
    });

    it('is refused for good once it was seen, where several poolers serve one address', async () => {
      const poolers = await Promise.all([1, 2, 3].map(() => startPgbouncer(database.url, mode)));
      const ports = poolers.map((url) => Number(new URL(url).port));
      const target = {
        get port() {
          return ports[Math.floor(Math.random() * ports.length)] as number;
        },
      };
      const balancer = await startProxy(target);
      onCleanUp(() => balancer.close());
      const url = new URL(poolers[0] as string);
      url.port = String(balancer.port);
      const openOne = () => openClient(url.href, 'test');
      await until('one was refused', () =>
        openOne().then(
          async (client) => {
            await client.end();
            return false;
          },
          (error) => error instanceof UnfitServer,
        ),
      );
      for (let count = 0; count < 20; count += 1) await expect(openOne()).rejects.toThrow(SENTENCE);
    });

    const PROPERTIES: Record<string, string[]> = {
      'that has one session': ['default_pool_size = 1'],
      'that takes turns between two': ['server_round_robin = 1', 'default_pool_size = 2', 'min_pool_size = 2'],
      'that takes turns between many': ['server_round_robin = 1', 'min_pool_size = 10'],
      'that has many to spare': ['min_pool_size = 10'],
    };
    it.each(Object.entries(PROPERTIES))('is found each time, %s, idle or busy', async (_, settings) => {
      const url = await startPgbouncer(database.url, mode, settings);
      for (const clients of [0, 1, 6]) {
        if (clients > 0) await keepBusy(url, clients);
        for (let count = 0; count < 6; count += 1) await expectRefused(url);
        await Promise.all(Array.from({ length: 6 }, () => expectRefused(url)));
      }
    });
  });
}
