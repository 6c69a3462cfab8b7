// A release is replaced by the next one under traffic, and taken back: both releases run side by
// side on the schema of the newer one, no client notices, and nothing is lost.
//
// The newer release is this clone with what an expanding release brings, so that the test is of use
// before there is one: a numbered script with columns for every table, a table, a function, grants,
// and all functions changed.
import { once } from 'node:events';
import { appendFile, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, expect } from 'vitest';
import { freePort } from '../../src/local/free-port.ts';
import { startBalancer } from '../support/balancers.ts';
import { startScript } from '../support/commands.ts';
import {
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  createFolder,
  type Database,
  drained,
  environmentOf,
  type Received,
  type Spawned,
  send,
  spawnProcess,
  subscribe,
  until,
} from '../support/harness.ts';
import { needing } from '../support/needing.ts';
import { checkOut, copyPresent, previousRelease, type Release } from '../support/previous-release.ts';
import { ENTRIES_OF_OPENING, entriesOf, expectSameAnswers, openAccounts, startTraffic } from '../support/traffic.ts';

const ACCOUNTS = Array.from({ length: 12 }, (_, number) => `account-${10 + number}`);
/** Ten times what migrate allows itself: the rest is for a busy machine. A fault here costs seconds. */
const LOCK_WAIT_MAX_MS = 1000;
const SAMPLE_EVERY_MS = 10;
/** Answers of one release that the other is asked for again. */
const RETRIES = 40;

let database: Database;
let broker: Broker;
let folder: string;

beforeEach(async () => {
  database = await createDatabase({ migrated: false });
  broker = createBroker();
  folder = await createFolder();
});
afterEach(cleanUp);

/** Of a release: its files, and processes of them. */
class Tree {
  readonly #folder: string;

  constructor(name: string) {
    this.#folder = path.join(folder, name);
  }

  get folder(): string {
    return this.#folder;
  }

  startApi(port: number): Promise<Spawned> {
    return spawnProcess('api', environmentOf(database, broker, { PORT: String(port) }), this.#folder);
  }

  startWorker(): Promise<Spawned> {
    return spawnProcess('worker', environmentOf(database, broker), this.#folder);
  }

  /** @returns what the command printed. */
  async run(command: string): Promise<{ code: number | null; out: string; err: string }> {
    const src = path.join(this.#folder, 'src');
    return startScript(`cli/${command}.ts`, [], { DATABASE_URL: database.url }, src).whenEnded;
  }
}

function previous(release: Release): Tree {
  const tree = new Tree('previous');
  checkOut(release, tree.folder);
  return tree;
}

async function next(): Promise<Tree> {
  const tree = new Tree('next');
  copyPresent(tree.folder);
  const migrations = path.join(tree.folder, 'migrations');
  const numbered = (await readdir(migrations)).filter((name) => /^\d+\.do\./.test(name));
  const tables = await namesOfTables(migrations, numbered);
  await writeFile(
    path.join(migrations, `${String(numbered.length + 1).padStart(3, '0')}.do.expand.sql`),
    `${tables.map((table) => `ALTER TABLE ${table} ADD COLUMN added text NOT NULL DEFAULT 'added';`).join('\n')}
     CREATE TABLE added (account_id text COLLATE "C" CONSTRAINT added_pk PRIMARY KEY);
     ALTER TABLE account ADD CONSTRAINT account_added CHECK (added <> '') NOT VALID;`,
  );
  await appendFile(path.join(migrations, 'grants.sql'), '\nGRANT SELECT, INSERT ON added TO balance_api;\n');
  const functions = path.join(migrations, 'functions');
  for (const file of await readdir(functions)) {
    const sql = await readFile(path.join(functions, file), 'utf8');
    await writeFile(path.join(functions, file), sql.replace(/\bAS \$\$\n/, 'AS $$$$\n  -- Of the next release.\n'));
  }
  await writeFile(
    path.join(functions, 'added_accounts.sql'),
    'CREATE OR REPLACE FUNCTION added_accounts() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT count(*) FROM added $$;\n',
  );
  return tree;
}

/** Those that a client reads or writes, without partitions, which get the columns of their table. */
async function namesOfTables(migrations: string, scripts: readonly string[]): Promise<string[]> {
  const texts = await Promise.all(scripts.map((name) => readFile(path.join(migrations, name), 'utf8')));
  return texts.flatMap((sql) => [...sql.matchAll(/^CREATE TABLE (\w+) \(/gm)].map(([, name]) => name as string));
}

/** How long a session waited at most for a lock on a table, as seen every few milliseconds. */
function watchLocks() {
  let isOver = false;
  let longestMs = 0;
  const watching = (async () => {
    while (!isOver) {
      const { rows } = await database.pool.query(`
        SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float8 * 1000 AS ms
        FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'relation' AND NOT granted AND datname = current_database() AND application_name !~ 'migrate'`);
      longestMs = Math.max(longestMs, rows[0].ms);
      await delay(SAMPLE_EVERY_MS);
    }
  })();
  watching.catch(() => {}); // end() reports it
  return async () => {
    isOver = true;
    await watching;
    return longestMs;
  };
}

/** On a busy machine no try of a minute may be short enough: then an operator runs it again. */
async function migrateUnderUpdates(tree: Tree) {
  for (;;) {
    const migrated = await tree.run('migrate');
    if (migrated.code === 0) return migrated;
    expect(migrated.err).toMatch(/each try held its locks for longer than updates may wait.* Nothing was changed/s);
  }
}

async function stop(process: Spawned): Promise<void> {
  const exited = once(process.child, 'exit');
  process.child.kill('SIGTERM');
  expect((await exited)[0]).toBe(0);
  expectNoErrors(process);
}

function expectNoErrors(process: Spawned): void {
  expect(process.lines().filter(({ level }) => level === 'error' || level === 'fatal')).toEqual([]);
}

async function expectEvents(received: readonly Received[]): Promise<void> {
  const { rows } = await database.pool.query('SELECT event_id(account_id, version, epoch) AS id FROM ledger');
  const ids = new Set(rows.map(({ id }) => id));
  await until('every event has come', () => new Set(received.map(({ messageId }) => messageId)).size >= ids.size);
  expect(received.filter(({ messageId }) => !ids.has(messageId))).toEqual([]);
}

const release = previousRelease();
const withHistory = needing('the commits of this repository: git fetch --unshallow --tags', release !== undefined);

withHistory.it(
  'an upgrade under traffic, and the way back, are noticed by no client',
  async () => {
    const [old, young] = [previous(release as Release), await next()];
    expect(await old.run('migrate')).toMatchObject({ code: 0 });
    const ports = [await freePort(), await freePort()];
    ports[1] = await freePort((ports[0] as number) + 1);
    const [one, other] = ports as [number, number];
    const urlOf = (port: number) => `http://127.0.0.1:${port}`;
    const apis = new Map([
      [one, await old.startApi(one)],
      [other, await old.startApi(other)],
    ]);
    const worker = await old.startWorker();
    const received = await subscribe(broker);
    const url = await startBalancer(ports);
    await openAccounts(url, ACCOUNTS);
    const traffic = startTraffic(() => url, ACCOUNTS);
    await traffic.more('on the old release');
    const ofOld = traffic.done.slice(-RETRIES);

    const waited = watchLocks();
    const migrated = await migrateUnderUpdates(young);
    expect(migrated.out).toMatch(/^migration \d+ expand\n/);
    expect(migrated.out).toContain('functions/apply_changes.sql');
    await traffic.more('of the old release, on the new schema');
    expect(await waited()).toBeLessThan(LOCK_WAIT_MAX_MS);

    const youngWorker = await young.startWorker();
    await traffic.more('with a worker of each');
    await stop(worker);
    const replace = async (port: number, tree: Tree) => {
      await stop(apis.get(port) as Spawned);
      apis.set(port, await tree.startApi(port));
      await traffic.more('after a process was replaced');
    };
    await replace(one, young);
    await expectSameAnswers(urlOf(one), ofOld);
    await replace(other, young);
    await traffic.more('on the new release');
    const ofYoung = traffic.done.slice(-RETRIES);
    await replace(one, old);
    await expectSameAnswers(urlOf(one), ofYoung);
    await replace(other, old);
    const workerAgain = await old.startWorker();
    await stop(youngWorker);
    await traffic.more('on the old release again');
    await replace(other, young);
    await traffic.end();

    expect(traffic.refused).toEqual([]);
    // What any client does when a slow machine asks it to come back later.
    expect([...traffic.again.keys()].filter((why) => why !== 'overloaded')).toEqual([]);
    // Neither more nor less than what was answered.
    const ledgerEntries = ACCOUNTS.length * ENTRIES_OF_OPENING + entriesOf(traffic.done);
    expect(await drained(database)).toMatchObject({ ledgerEntries, offendingAccounts: 0 });
    for (const tree of [old, young]) {
      const { code, out } = await tree.run('verify');
      expect({ code, verdict: out.trim().split('\n').at(-1) }).toEqual({ code: 0, verdict: 'verified' });
    }
    await expectEvents(received);
    // Both kinds of process are well on the newer schema, and the older migrate refuses it.
    for (const port of ports) expect(await send(urlOf(port), 'GET', '/readyz')).toMatchObject({ status: 200 });
    for (const process of [...apis.values(), workerAgain]) expectNoErrors(process);
    expect(await old.run('migrate')).toMatchObject({ code: 1, err: expect.stringContaining('use a newer release') });
  },
  400_000,
);
