// The whole path, from an empty database to the proof, where the database, the role or the server
// has the most hostile defaults that it can have: every setting that a session may change is turned
// away from what the service needs.
import pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { freePort } from '../../src/local/free-port.ts';
import { openClient, openPool } from '../../src/shared/database.ts';
import { type SessionUse, settingsFor } from '../../src/shared/session-settings.ts';
import { type DisposablePostgres, startDisposablePostgres } from '../support/backends.ts';
import { runCommand } from '../support/commands.ts';
import {
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  environmentOf,
  onCleanUp,
  send,
  sendPatiently,
  spawnProcess,
  subscribe,
  until,
} from '../support/harness.ts';

/** Those that a server does not know are left out. Times are long enough to connect within. */
const HOSTILE = {
  DateStyle: 'German, DMY',
  IntervalStyle: 'iso_8601',
  TimeZone: 'America/St_Johns',
  client_encoding: 'LATIN1',
  bytea_output: 'escape',
  extra_float_digits: '-15',
  array_nulls: 'off',
  standard_conforming_strings: 'off',
  escape_string_warning: 'off',
  backslash_quote: 'on',
  quote_all_identifiers: 'on',
  transform_null_equals: 'on',
  xmlbinary: 'hex',
  client_min_messages: 'debug5',
  check_function_bodies: 'off',
  default_transaction_isolation: 'serializable',
  default_transaction_deferrable: 'on',
  row_security: 'on',
  exit_on_error: 'on',
  synchronous_commit: 'off',
  lock_timeout: '1ms',
  statement_timeout: '1s',
  idle_in_transaction_session_timeout: '1ms',
  transaction_timeout: '1s',
  idle_session_timeout: '1s',
  enable_bitmapscan: 'off',
  enable_gathermerge: 'off',
  enable_hashagg: 'off',
  enable_hashjoin: 'off',
  enable_incremental_sort: 'off',
  enable_indexonlyscan: 'off',
  enable_indexscan: 'off',
  enable_material: 'off',
  enable_memoize: 'off',
  enable_mergejoin: 'off',
  enable_nestloop: 'off',
  enable_parallel_append: 'off',
  enable_parallel_hash: 'off',
  enable_partition_pruning: 'off',
  enable_seqscan: 'off',
  enable_sort: 'off',
  enable_tidscan: 'off',
  constraint_exclusion: 'on',
  from_collapse_limit: '1',
  join_collapse_limit: '1',
  plan_cache_mode: 'force_custom_plan',
  jit: 'on',
  jit_above_cost: '0',
  tcp_keepalives_idle: '1000',
  tcp_keepalives_interval: '1000',
  tcp_keepalives_count: '1',
  tcp_user_timeout: '2000',
  force_parallel_mode: 'on',
  debug_parallel_query: 'on',
  work_mem: '64kB',
};

/**
 * What the shell of a developer may hold. Only the password file would count, and there is none.
 */
const SHELL = {
  PGOPTIONS: '-c search_path=nowhere -c datestyle=SQL',
  PGHOST: '192.0.2.1',
  PGPORT: '1',
  PGUSER: 'nobody',
  PGDATABASE: 'nothing',
  PGAPPNAME: 'somebody else',
  PGREPLICATION: 'database',
  PGSSLNEGOTIATION: 'direct',
  PGCLIENT_ENCODING: 'latin1',
};

let postgres: DisposablePostgres;
let admin: pg.Client;
let hostile: [string, string][];

beforeAll(async () => {
  postgres = await startDisposablePostgres();
  onCleanUp(() => postgres.stop());
  admin = await openClient(postgres.url, 'test');
  onCleanUp(() => admin.end());
  const { rows } = await admin.query('SELECT lower(name) AS name FROM pg_settings');
  const known = new Set(rows.map(({ name }) => name));
  hostile = Object.entries(HOSTILE).filter(([name]) => known.has(name.toLowerCase()));
});
afterAll(cleanUp);

async function alter(what: string): Promise<void> {
  for (const [name, value] of hostile) await admin.query(`ALTER ${what} SET ${name} = ${pg.escapeLiteral(value)}`);
}

/** A database that nobody has migrated yet, of a login role that owns it and is no superuser. */
async function createOwned(role: string): Promise<{ database: Database; name: string }> {
  const database = await createDatabase({ migrated: false, serverUrl: postgres.url });
  const url = new URL(database.url);
  const name = url.pathname.slice(1);
  await admin.query(`CREATE ROLE ${role} LOGIN CREATEROLE PASSWORD 'a/b%c d'`);
  await admin.query(`ALTER DATABASE ${name} OWNER TO ${role}`);
  // A raw space beside an encoded slash and a lone percent sign.
  return {
    database: { ...database, url: `postgres://${role}:a%2Fb%c d@${url.host}/${name}?options=-c work_mem=1MB` },
    name,
  };
}

const run = (command: 'migrate' | 'verify', { url }: Database) =>
  runCommand([command], { ...SHELL, DATABASE_URL: url });

/** The core of what the service does, each answer looked at. */
async function exercise(database: Database): Promise<void> {
  expect(await run('migrate', database)).toMatchObject({ code: 0 });
  const broker = createBroker();
  const environment = environmentOf(database, broker, { ...SHELL, LOG_LEVEL: 'warn', LANES: '2', HEALTH_PORT: '0' });
  const port = await freePort();
  const api = await spawnProcess('api', { ...environment, PORT: String(port) });
  const worker = await spawnProcess('worker', environment);
  const url = `http://127.0.0.1:${port}`;
  const events = await subscribe(broker);
  await until('the API is ready', async () => (await send(url, 'GET', '/readyz')).status === 200);

  const created = await send(url, 'POST', '/v1/accounts', { id: 'alice' });
  expect(created).toMatchObject({ status: 201, body: { createdAt: expect.stringMatching(ISO) } });
  const update = (amount: number, headers: Record<string, string> = {}) =>
    sendPatiently(url, 'POST', '/v1/balance-updates', { accountId: 'alice', amount }, headers);
  const first = await update(10, { 'idempotency-key': 'first' });
  expect(first).toMatchObject({
    status: 200,
    body: {
      balance: 10,
      version: 1,
      eventId: expect.stringMatching(/^alice:1\b/),
      createdAt: expect.stringMatching(ISO),
    },
  });
  expect((await update(10, { 'idempotency-key': 'first' })).body).toEqual(first.body);
  // With array_nulls off both would have the key "NULL", and the second be a replay or a misuse of
  // it.
  expect((await update(1)).body).toMatchObject({ balance: 11, version: 2 });
  expect((await update(2)).body).toMatchObject({ balance: 13, version: 3 });
  const bulk = await send(url, 'POST', '/v1/balance-updates/bulk', {
    updates: [
      { accountId: 'alice', amount: 5, reference: REFERENCE },
      { accountId: 'alice', amount: -1_000_000 },
      { accountId: 'nobody', amount: 1 },
    ],
  });
  expect(bulk.body.results).toMatchObject([
    { status: 200, balance: 18 },
    { status: 400, code: 'insufficient_funds' },
    { status: 404, code: 'account_not_found' },
  ]);
  await underLoad(url, update);

  const { version } = (await send(url, 'GET', '/v1/accounts/alice')).body;
  await drained(database);
  const path = `/v1/accounts/alice/entries?reference=${encodeURIComponent(REFERENCE)}`;
  expect((await send(url, 'GET', path)).body.entries).toMatchObject([
    { version: 4, amount: 5, balance: 18, reference: REFERENCE, createdAt: expect.stringMatching(ISO) },
  ]);
  await until('every event arrived', () => new Set(events.map(({ body }) => body.id)).size >= version);
  expect(events.filter(({ body }) => body.id.includes('undefined'))).toEqual([]);
  expect(await run('verify', database)).toMatchObject({ code: 0 });
  await Promise.all([api.kill(), worker.kill()]);
}

const REFERENCE = "it's a \\ back\\slash, NULL";
const ISO = /^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

/** Changes of an account that is busy, and creations that meet each other: nothing may fail. */
async function underLoad(url: string, update: (amount: number) => Promise<{ status: number }>): Promise<void> {
  let busy = true;
  const statuses = new Map<string, number>();
  const count = (what: string, status: number) => {
    const key = `${what} ${status}`;
    statuses.set(key, (statuses.get(key) ?? 0) + 1);
  };
  const clients = Array.from({ length: 8 }, async () => {
    while (busy) count('update', (await update(1)).status);
  });
  for (let round = 0; round < 40; round += 1) {
    const changed = await sendPatiently(url, 'PATCH', '/v1/accounts/alice', { overdraftLimit: round });
    count('change', changed.status);
  }
  for (let round = 0; round < 10; round += 1) {
    const body = { id: `created-${round}` };
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => sendPatiently(url, 'POST', '/v1/accounts', body)),
    );
    for (const { status } of answers) count('create', status);
  }
  busy = false;
  await Promise.all(clients);
  expect([...statuses.keys()].sort()).toEqual(['change 200', 'create 200', 'create 201', 'update 200']);
}

it('works where the defaults of the database are hostile', async () => {
  const { database, name } = await createOwned('one');
  await alter(`DATABASE ${name}`);
  await exercise(database);
});

it('works where the defaults of the role are hostile', async () => {
  const { database } = await createOwned('two');
  await alter('ROLE two');
  await exercise(database);
});

/** What a session runs with, of what it should. */
async function settingsOf(client: pg.ClientBase | pg.Pool): Promise<Record<string, string>> {
  const { rows } = await client.query(
    'SELECT lower(name) AS name, setting FROM pg_settings WHERE lower(name) = ANY($1)',
    [Object.keys(wanted({}))],
  );
  return Object.fromEntries(rows.map(({ name, setting }) => [name, setting]));
}

const wanted = (use: SessionUse) =>
  Object.fromEntries(Object.entries(settingsFor(use)).map(([name, value]) => [name.toLowerCase(), value]));

const ANY_PLANS: SessionUse = {};
const INDEXED_PLANS: SessionUse = { plans: 'indexed plans', statementTimeoutMs: 7000 };

it('runs with the same settings everywhere, pooled or not, whatever the defaults', async () => {
  const { database } = await createOwned('four');
  await alter('ROLE four');
  const plain = new pg.Client(database.url.replace('a%2Fb%c d', encodeURIComponent('a/b%c d')).replaceAll(' ', '%20'));
  await plain.connect();
  const inherited = await settingsOf(plain);
  await plain.end();
  const known = Object.keys(inherited);
  for (const use of [ANY_PLANS, INDEXED_PLANS]) {
    const client = await openClient(database.url, 'test', use);
    onCleanUp(() => client.end());
    const found = await settingsOf(client);
    expect(wanted(use)).toMatchObject(found);
    const pool = openPool(database.url, 'test', 3, use);
    onCleanUp(() => pool.end());
    // Many at once: none gets a connection that is not prepared.
    const all = await Promise.all(Array.from({ length: 12 }, () => settingsOf(pool)));
    for (const one of all) expect(one).toEqual(found);
  }
  // The list above is complete: without the service's own settings each one would be another. The
  // driver sets the encoding.
  const same = known.filter((name) => [ANY_PLANS, INDEXED_PLANS].every((use) => wanted(use)[name] === inherited[name]));
  expect(same).toEqual(['client_encoding']);
  const unknown = Object.keys(wanted({})).filter((name) => !known.includes(name));
  expect(['transaction_timeout', 'force_parallel_mode', 'debug_parallel_query']).toEqual(
    expect.arrayContaining(unknown),
  );
});

it('works where the defaults of the server are hostile', async () => {
  const { database } = await createOwned('three');
  await alter('SYSTEM');
  await admin.query('SELECT pg_reload_conf()');
  await exercise(database);
});
