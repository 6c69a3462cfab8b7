// Migrations: all or nothing, one runner at a time, never a silent skip, and never in the way of
// updates.
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { noteMissedRange } from '../../src/api/relay/missed.ts';
import { openClient } from '../../src/shared/database.ts';
import { MigrationError, UnreleasedDatabase } from '../../src/shared/migration-error.ts';
import { expectedSchemaVersion, migrate } from '../../src/shared/migrations.ts';
import { inShortTries } from '../../src/shared/short-tries.ts';
import { SessionsWait, unlessSessionsWait } from '../../src/shared/waiters-watch.ts';
import {
  applyDirectly,
  cleanUp,
  createDatabase,
  type Database,
  insertAccounts,
  onCleanUp,
  until,
  verified,
} from '../support/harness.ts';
import { pictureOfSchema } from '../support/schema-picture.ts';

const SCRIPTS = fileURLToPath(new URL('../../migrations/', import.meta.url));
/** 100 by design; the rest is for a busy machine. A fault here costs a second or three. */
const UPDATE_WAIT_MAX_MS = 900;
/** Of a release with numbered scripts and functions: from the first lock to the commit. */
const ROUND_TRIPS_MAX = 8;
/** As in raise_outbox_position. */
const POSITIONS_LEFT_OUT = 10_000;
let newest: number;

beforeAll(async () => {
  newest = await expectedSchemaVersion();
});
afterAll(cleanUp);

/**
 * The project's scripts and further ones, in a folder with a name that a glob would take for a
 * pattern.
 */
async function scripts(extra: Record<string, string>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'migrations [x] {y} '));
  onCleanUp(() => rm(folder, { recursive: true }));
  await cp(SCRIPTS, folder, { recursive: true });
  for (const [name, sql] of Object.entries(extra)) await writeFile(join(folder, name), sql);
  return folder;
}

const script = (offset: number, name: string) => `${String(newest + offset).padStart(3, '0')}.do.${name}.sql`;
const migrateFrom = (folder: string, { url }: Database, giveUpMs?: number) => migrate(url, () => {}, folder, giveUpMs);
const textOf = (file: string) => readFile(join(SCRIPTS, file), 'utf8');

async function versionOf({ pool }: Database): Promise<number> {
  return (await pool.query('SELECT max(version) AS version FROM schemaversion')).rows[0].version;
}

async function pictureOf({ pool }: Database): Promise<string> {
  const client = await pool.connect();
  try {
    return await pictureOfSchema(client);
  } finally {
    client.release();
  }
}

/** Whether the database has nothing of ours. */
async function isEmpty({ pool }: Database): Promise<boolean> {
  const { rows } = await pool.query(`SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace`);
  return rows.length === 0;
}

describe('numbered scripts', () => {
  it('bring an empty database to the newest version, and then there is nothing to do', async () => {
    const database = await createDatabase({ migrated: false });
    const first = await migrate(database.url);
    expect(first.version).toBe(newest);
    expect(first.applied).toHaveLength(newest);
    expect(await migrate(database.url)).toEqual({ version: newest, applied: [], changed: [], repaired: [] });
    expect(await verified(database)).toMatchObject({ accounts: 0, offendingAccounts: 0 });
  });

  it('run once each when many runners start together', async () => {
    const database = await createDatabase({ migrated: false });
    const results = await Promise.all(Array.from({ length: 6 }, () => migrate(database.url)));
    expect(results.filter((result) => result.applied.length > 0)).toHaveLength(1);
    expect(results.filter((result) => result.changed.length > 0)).toHaveLength(1);
    expect(results.flatMap((result) => result.repaired)).toEqual([]);
    expect(await versionOf(database)).toBe(newest);
  });

  it('leave nothing of a run in which a later one fails', async () => {
    const database = await createDatabase();
    const folder = await scripts({
      [script(1, 'fine')]: 'CREATE TABLE fine (); INSERT INTO fine DEFAULT VALUES;',
      [script(2, 'broken')]: 'CREATE TABLE half ();\nSELECT FROM nothing;',
    });
    await expect(migrateFrom(folder, database)).rejects.toThrow(
      `migrations/${script(2, 'broken')} failed, nothing was changed: relation "nothing" does not exist (line 2)`,
    );
    expect(await versionOf(database)).toBe(newest);
    const { rows } = await database.pool.query(`SELECT to_regclass('fine') AS fine, to_regclass('half') AS half`);
    expect(rows).toEqual([{ fine: null, half: null }]);
    await rm(join(folder, script(2, 'broken')));
    expect((await migrateFrom(folder, database)).applied).toEqual(['fine']);
  });

  it('are refused when one was changed after it ran', async () => {
    const database = await createDatabase();
    const folder = await scripts({ '001.do.tables.sql': 'CREATE TABLE account (balance float);' });
    await expect(migrateFrom(folder, database)).rejects.toThrow(
      /script 1 is not the one that created this database .*MD5/,
    );
  });

  it('are refused with a hole in the numbers', async () => {
    const database = await createDatabase();
    const folder = await scripts({ [script(2, 'later')]: 'SELECT 1;' });
    await expect(migrateFrom(folder, database)).rejects.toThrow(`migration script ${newest + 1} is missing`);
  });

  it('are refused when the database is newer', async () => {
    const database = await createDatabase();
    await database.pool.query(`INSERT INTO schemaversion (version, name) VALUES (${newest + 1}, 'from the future')`);
    await expect(migrate(database.url)).rejects.toThrow(/use a newer release/);
  });
});

describe('function files', () => {
  const FILE = 'functions/money_verdict.sql';

  it('change the database without a numbered script when one word of them changes', async () => {
    const database = await createDatabase();
    const sql = await textOf(FILE);
    const folder = await scripts({ [FILE]: sql.replaceAll('insufficient_funds', 'too_poor') });
    const verdict = async () =>
      (await database.pool.query('SELECT money_verdict(-1, 0, 0, 0) AS verdict')).rows[0].verdict;
    expect(await verdict()).toBe('insufficient_funds');
    const changed = { version: newest, applied: [], changed: [FILE], repaired: [] };
    expect(await migrateFrom(folder, database)).toEqual(changed);
    expect(await verdict()).toBe('too_poor');
    expect(await migrateFrom(folder, database)).toMatchObject({ changed: [] });
    expect(await migrate(database.url)).toEqual(changed);
    expect(await verdict()).toBe('insufficient_funds');
  });

  it.each([
    ['RETURNS integer\nLANGUAGE sql AS $$ SELECT missing $$', 'column "missing" does not exist (line 2)'],
    ['RETURNS integer\nLANGUAGE nonsense sql AS $$ SELECT 1 $$', 'syntax error at or near "sql" (line 2)'],
    ['RETURNS no_such_type\nLANGUAGE sql AS $$ SELECT 1 $$', 'type "no_such_type" does not exist'],
  ])('are named with the line when one fails, and nothing is changed: %s', async (definition, refusal) => {
    const database = await createDatabase();
    const folder = await scripts({
      [script(1, 'fine')]: 'CREATE TABLE fine ();',
      'functions/broken.sql': `CREATE OR REPLACE FUNCTION broken() ${definition};`,
      'functions/fine.sql': 'CREATE OR REPLACE FUNCTION fine() RETURNS integer LANGUAGE sql AS $$ SELECT 1 $$;',
    });
    const refused = migrateFrom(folder, database);
    await expect(refused).rejects.toBeInstanceOf(MigrationError);
    await expect(refused).rejects.toThrow(`migrations/functions/broken.sql failed, nothing was changed: ${refusal}`);
    expect(await versionOf(database)).toBe(newest);
  });

  it('are applied again where someone changed or dropped the function, which is reported', async () => {
    const database = await createDatabase();
    const before = await pictureOf(database);
    await database.pool.query(`
      DROP FUNCTION open_account;
      ALTER FUNCTION current_epoch SET search_path = public;
      ALTER FUNCTION apply_changes STRICT;
      ALTER FUNCTION extend_ledger_chain RESET ALL;
      CREATE OR REPLACE FUNCTION money_verdict(amount bigint, balance bigint, floor bigint, ceiling bigint) RETURNS text
      LANGUAGE sql IMMUTABLE AS $$ SELECT NULL::text $$;`);
    expect((await migrate(database.url)).repaired).toEqual([
      'the function apply_changes was changed by hand: applied functions/apply_changes.sql again',
      'the function current_epoch was changed by hand: applied functions/current_epoch.sql again',
      'the function extend_ledger_chain was changed by hand: applied functions/extend_ledger_chain.sql again',
      'the function money_verdict was changed by hand: applied functions/money_verdict.sql again',
      'the function open_account was missing: applied functions/open_account.sql again',
    ]);
    expect(await pictureOf(database)).toBe(before);
  });

  it('with other arguments are refused until a numbered script drops the old function', async () => {
    const database = await createDatabase();
    const sql = (await textOf(FILE)).replace('ceiling bigint)', 'ceiling bigint, more bigint)');
    const folder = await scripts({ [FILE]: sql });
    await expect(migrateFrom(folder, database)).rejects.toThrow(
      /money_verdict\.sql creates a second function next to an old one: money_verdict\(.*\), money_verdict\(.*\)\. Nothing was changed\. Drop/,
    );
    await writeFile(join(folder, script(1, 'verdict')), 'DROP FUNCTION money_verdict(bigint, bigint, bigint, bigint);');
    expect(await migrateFrom(folder, database)).toMatchObject({ applied: ['verdict'], changed: [FILE] });
  });

  it('that vanished leave their function until a numbered script drops it', async () => {
    const database = await createDatabase();
    const folder = await scripts({
      'functions/old.sql': 'CREATE OR REPLACE FUNCTION old() RETURNS integer LANGUAGE sql AS $$ SELECT 1 $$;',
    });
    await migrateFrom(folder, database);
    await rm(join(folder, 'functions/old.sql'));
    const lines: string[] = [];
    await migrate(database.url, (line) => lines.push(line), folder);
    expect(lines).toEqual(['functions/old.sql is not part of this release: the function old was left in the database']);
    await writeFile(join(folder, script(1, 'drop-old')), 'DROP FUNCTION old();');
    await migrateFrom(folder, database);
    const { rows } = await database.pool.query(`SELECT FROM schema_file WHERE name = 'functions/old.sql'`);
    expect(rows).toEqual([]);
  });

  it('hold one function each, of their name, and no numbered script makes one', async () => {
    for (const file of await readdir(join(SCRIPTS, 'functions'))) {
      const made = [...(await textOf(`functions/${file}`)).matchAll(/^CREATE OR REPLACE FUNCTION (\w+)/gm)];
      expect(made.map(([, name]) => `${name}.sql`)).toEqual([file]);
    }
    for (const file of (await readdir(SCRIPTS)).filter((name) => /^\d/.test(name))) {
      expect(await textOf(file)).not.toMatch(/\b(FUNCTION|GRANT|REVOKE)\b/);
    }
  });
});

describe('what was lost', () => {
  it('of grants and triggers, as a restore can lose it, is named and made again', async () => {
    const database = await createDatabase();
    const before = await pictureOf(database);
    await database.pool.query(`
      REVOKE ALL ON ALL TABLES IN SCHEMA public FROM balance_api, balance_worker, balance_auditor;
      REVOKE ALL ON SEQUENCE outbox_position FROM balance_api;
      GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC;
      REVOKE USAGE ON SCHEMA public FROM balance_worker;
      GRANT DELETE ON ledger TO balance_worker;
      DROP TRIGGER ledger_rows_are_final ON ledger;
      ALTER TABLE ledger_chain DISABLE TRIGGER ledger_chain_is_append_only;
      ALTER TABLE epoch ENABLE TRIGGER ALL;`);
    const { applied, changed, repaired } = await migrate(database.url);
    expect({ applied, changed }).toEqual({ applied: [], changed: [] });
    const again = 'applied functions/refuse_change_of_history.sql again';
    expect(repaired).toEqual(
      expect.arrayContaining([
        `the trigger ledger_rows_are_final of ledger was missing: ${again}`,
        `the trigger ledger_chain_is_append_only of ledger_chain was disabled: ${again}`,
        `the trigger epoch_rows_are_final of epoch was not always enabled: ${again}`,
        'lost: INSERT to balance_worker on ledger, ledger_chain: granted again',
        'lost: USAGE to balance_api on outbox_position: granted again',
        'lost: USAGE to balance_worker on schema public: granted again',
        'too much: DELETE to balance_worker on ledger: revoked',
      ]),
    );
    expect(repaired.join('\n')).toMatch(/^too much: EXECUTE to PUBLIC on apply_changes\(\), .*: revoked$/m);
    expect(await pictureOf(database)).toBe(before);
    expect(await migrate(database.url)).toMatchObject({ repaired: [] });
  });

  it('of sequences, which logical replication does not copy, is named and raised', async () => {
    const database = await createDatabase();
    const { pool } = database;
    await insertAccounts(database, 'a');
    for (let version = 1; version <= 3; version += 1) await applyDirectly(pool, 'a', 1);
    await pool.query(`
      INSERT INTO missed (missed_id, first_position, first_created_at) OVERRIDING SYSTEM VALUE VALUES (1, 1, now()), (2, 2, now());
      SELECT setval('outbox_position', 1, false)`);
    await expect(applyDirectly(pool, 'a', 1)).rejects.toThrow(/outbox_even_position_unique/);
    await expect(noteMissedRange(pool as never, 0, 1)).rejects.toThrow(/missed_pk/);
    const { rows } = await pool.query('SELECT max(position) AS position FROM outbox');
    expect(await migrate(database.url)).toMatchObject({
      repaired: [
        `outbox_position would have repeated positions: set to ${rows[0].position + POSITIONS_LEFT_OUT}`,
        'missed_missed_id_seq would have repeated numbers of missed: set to 2',
      ],
    });
    await applyDirectly(pool, 'a', 1);
    await noteMissedRange(pool as never, 0, 1);
    expect(await migrate(database.url)).toMatchObject({ repaired: [] });
  });

  it('of the sequence is noticed by what the relay has noted, where the outbox is empty', async () => {
    const database = await createDatabase();
    await database.pool.query(`INSERT INTO relay_progress (track, position) VALUES ('ledger', 70000000)`);
    expect(await migrate(database.url)).toMatchObject({
      repaired: [`outbox_position would have repeated positions: set to ${70_000_000 + POSITIONS_LEFT_OUT}`],
    });
  });

  it('does not include what others were granted', async () => {
    const database = await createDatabase();
    await database.pool.query(`CREATE ROLE monitoring_of_tests; GRANT SELECT ON account TO monitoring_of_tests`);
    onCleanUp(() => database.pool.query('DROP OWNED BY monitoring_of_tests; DROP ROLE monitoring_of_tests'));
    expect(await migrate(database.url)).toMatchObject({ repaired: [] });
    const { rows } = await database.pool.query(
      `SELECT has_table_privilege('monitoring_of_tests', 'account', 'SELECT') AS granted`,
    );
    expect(rows).toEqual([{ granted: true }]);
  });
});

describe('a database that does not fit', () => {
  it.each(['LATIN1', 'EUC_JP'])('encoded in %s is refused', async (encoding) => {
    const database = await createDatabase({ migrated: false });
    const url = new URL(database.url);
    url.pathname += encoding.toLowerCase();
    await database.pool.query(
      `CREATE DATABASE ${url.pathname.slice(1)} TEMPLATE template0 ENCODING '${encoding}' LOCALE_PROVIDER libc LOCALE 'C'`,
    );
    onCleanUp(() => database.pool.query(`DROP DATABASE ${url.pathname.slice(1)} WITH (FORCE)`));
    await expect(migrate(url.href)).rejects.toThrow(`encoded in ${encoding}: make one with ENCODING 'UTF8'`);
  });

  it('of an unreleased version is refused with what to do, and left as it is', async () => {
    const database = await createDatabase({ migrated: false });
    await database.pool.query(`
      CREATE TABLE schemaversion (version bigint PRIMARY KEY, name text, md5 text, run_at timestamptz);
      INSERT INTO schemaversion (version, name) VALUES (1, 'tables'), (2, 'ledger-append-only'), (3, 'apply-balance-updates');
      CREATE TABLE account (account_id text PRIMARY KEY, balance bigint);
      CREATE TABLE request (account_id text, idempotency_key text);`);
    const before = await pictureOf(database);
    const refused = migrate(database.url);
    await expect(refused).rejects.toBeInstanceOf(UnreleasedDatabase);
    await expect(refused).rejects.toThrow(
      /created by an unreleased version of highload-balance and cannot be migrated\. Nothing was changed\. Use an empty database/,
    );
    expect(await pictureOf(database)).toBe(before);
  });

  it('with a schemaversion of other scripts is refused', async () => {
    const database = await createDatabase({ migrated: false });
    await database.pool.query(`
      CREATE TABLE schemaversion (version bigint PRIMARY KEY, name text, md5 text, run_at timestamptz);
      INSERT INTO schemaversion (version, name) VALUES (1, 'users')`);
    await expect(migrate(database.url)).rejects.toThrow('other scripts: 1 is "users", not "tables"');
  });

  it('without the schema that the search path names is refused', async () => {
    const database = await createDatabase({ migrated: false });
    const url = new URL(database.url);
    url.searchParams.set('options', '-csearch_path=nowhere');
    await expect(migrate(url.href)).rejects.toThrow('no schema of search_path exists');
  });
});

it('makes the same schema whatever the database, role and session set', async () => {
  const database = await createDatabase({ migrated: false });
  const name = new URL(database.url).pathname.slice(1);
  for (const setting of [
    'standard_conforming_strings = off',
    'backslash_quote = on',
    'check_function_bodies = off',
    'client_min_messages = error',
    'search_path = pg_catalog, public',
    'quote_all_identifiers = on',
    'lock_timeout = 1',
    "default_transaction_isolation = 'serializable'",
    "DateStyle = 'SQL, DMY'",
  ]) {
    await database.pool.query(`ALTER DATABASE ${name} SET ${setting}`);
  }
  await migrate(database.url);
  await database.pool.query(`ALTER DATABASE ${name} RESET ALL`);
  expect(await pictureOf(database)).toBe(await textOf('schema.sql'));
  await database.pool.query(
    `INSERT INTO account (account_id, epoch, created_at, updated_at) VALUES ('a', 1, now(), now()), ('ab', 1, now(), now())`,
  );
});

describe('locks', () => {
  /** Runs updates one after the other until stopped. */
  function keepUpdating(client: pg.PoolClient) {
    let isStopped = false;
    let longestMs = 0;
    const running = (async () => {
      while (!isStopped) {
        const startedAt = performance.now();
        await client.query(`UPDATE account SET balance = balance + 1, version = version + 1 WHERE account_id = 'a'`);
        longestMs = Math.max(longestMs, performance.now() - startedAt);
        await delay(1);
      }
    })();
    running.catch(() => {}); // stop() reports it
    return {
      /** @returns the longest that one took, in ms. */
      stop: async () => {
        isStopped = true;
        await running;
        return longestMs;
      },
    };
  }

  interface UnderTraffic {
    database: Database;
    /** It has a read lock on the table of accounts. */
    holder: pg.PoolClient;
    updates: ReturnType<typeof keepUpdating>;
  }

  /** @returns the longest that an update took, in ms. */
  async function withTraffic(work: (traffic: UnderTraffic) => Promise<void>): Promise<number> {
    const database = await createDatabase();
    await database.pool.query(
      `INSERT INTO account (account_id, epoch, created_at, updated_at) VALUES ('a', 1, now(), now())`,
    );
    const [client, holder] = [await database.pool.connect(), await database.pool.connect()];
    const updates = keepUpdating(client);
    try {
      await holder.query('BEGIN; SELECT FROM account;');
      await work({ database, holder, updates });
    } finally {
      await holder.query('ROLLBACK');
      await updates.stop();
      client.release();
      holder.release();
    }
    return await updates.stop();
  }

  it('are waited for in short tries, and an update never waits longer than 100 ms', async () => {
    const longestMs = await withTraffic(async ({ database, holder, updates }) => {
      const folder = await scripts({ [script(1, 'note')]: 'ALTER TABLE account ADD COLUMN note text;' });
      const migrating = migrateFrom(folder, database);
      await delay(3_000);
      expect(await versionOf(database)).toBe(newest);
      await updates.stop(); // on a busy machine no try may be short enough for them: the next test but one counts
      await holder.query('COMMIT');
      expect((await migrating).applied).toEqual(['note']);
    });
    expect(longestMs).toBeLessThan(UPDATE_WAIT_MAX_MS);
  });

  it('are given back when updates wait for them, however long the script takes', async () => {
    const longestMs = await withTraffic(async ({ database, holder }) => {
      await holder.query('ROLLBACK');
      const folder = await scripts({
        [script(1, 'note')]: 'ALTER TABLE account ADD COLUMN note text; SELECT pg_sleep(1);',
      });
      await expect(migrateFrom(folder, database, 2_000)).rejects.toThrow(
        /^for 2 s each try held its locks for longer than updates may wait: .* Nothing was changed$/,
      );
      expect(await versionOf(database)).toBe(newest);
    });
    expect(longestMs).toBeLessThan(UPDATE_WAIT_MAX_MS);
  });

  it('are held for a few round trips, however much of a release is new', async () => {
    const database = await createDatabase();
    const functions = (await readdir(join(SCRIPTS, 'functions'))).map((name) => `functions/${name}`).sort();
    const changed = functions.map(async (name) => {
      const sql = await textOf(name);
      return [name, sql.replace(/\bAS \$\$\n/, 'AS $$$$\n  -- Of the next release.\n')];
    });
    const folder = await scripts({
      [script(1, 'expand')]: 'ALTER TABLE account ADD COLUMN note text;',
      ...Object.fromEntries(await Promise.all(changed)),
    });
    const spy = vi.spyOn(pg.Client.prototype, 'query'); // calls through
    const migrated = await migrateFrom(folder, database);
    const sent = spy.mock.calls.map(([statement]) => String((statement as { text?: string }).text ?? statement));
    spy.mockRestore();
    expect(migrated).toEqual({ version: newest + 1, applied: ['expand'], changed: functions, repaired: [] });
    const ofMigrate = sent.filter((statement) => !statement.includes('pg_blocking_pids'));
    const untilCommit = ofMigrate.slice(0, ofMigrate.indexOf('COMMIT') + 1);
    const first = untilCommit.findLastIndex((statement) => statement.startsWith('ALTER TABLE account')); // of the last try
    expect(first).toBeGreaterThan(0);
    const held = untilCommit.slice(first);
    expect(held.length, held.map((statement) => statement.slice(0, 60)).join('\n')).toBeLessThanOrEqual(
      ROUND_TRIPS_MAX,
    );
  });

  async function openClients(database: Database) {
    const [client, watcher, other] = await Promise.all([1, 2, 3].map(() => openClient(database.url, 'test')));
    const all = { client: client as pg.Client, watcher: watcher as pg.Client, other: other as pg.Client };
    onCleanUp(() => Promise.all(Object.values(all).map((one) => one.end())));
    const { pid } = (await all.client.query('SELECT pg_backend_pid() AS pid')).rows[0];
    return { ...all, pid: pid as number };
  }

  it('are given up between two statements too, where PostgreSQL ignores a cancellation', async () => {
    const { client, watcher, other, pid } = await openClients(await createDatabase());
    const cancelling = vi.spyOn(watcher, 'query');
    const hasCancelled = async () => {
      const answers = await Promise.all(cancelling.mock.results.map(({ value }) => value as unknown as pg.QueryResult));
      return answers.some(({ rowCount }) => rowCount === 1);
    };
    const refusals: unknown[] = [];
    let waiting: Promise<unknown> | undefined;
    const work = async () => {
      if (waiting) return client.query('SELECT 1'); // the second try
      await client.query('LOCK TABLE account IN ACCESS EXCLUSIVE MODE');
      waiting = other.query('SELECT FROM account');
      await until('it was cancelled', hasCancelled);
      return client.query('SELECT 1').catch((error) => {
        refusals.push(error);
        throw error;
      });
    };
    await inShortTries(client, () => unlessSessionsWait(client, watcher, pid, work));
    expect(refusals).toEqual([expect.any(SessionsWait)]);
    await waiting;
  });

  it('are not given up while it commits, as when it waits for a synchronous standby', async () => {
    const database = await createDatabase();
    const { client, watcher, other, pid } = await openClients(database);
    await database.pool.query(`
      CREATE TABLE slow ();
      CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;
      CREATE CONSTRAINT TRIGGER sleep AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION sleep()`);
    let waiting: Promise<unknown> | undefined;
    const work = async () => {
      await client.query('INSERT INTO slow DEFAULT VALUES');
      await client.query('LOCK TABLE account IN ACCESS EXCLUSIVE MODE');
      waiting ??= other.query('SELECT FROM account');
    };
    await inShortTries(client, () => unlessSessionsWait(client, watcher, pid, work));
    await waiting;
    expect((await database.pool.query('SELECT FROM slow')).rowCount).toBe(1);
  });

  it('of sequences are waited for after the commit, and not indefinitely', async () => {
    const database = await createDatabase();
    const { other } = await openClients(database);
    const folder = await scripts({ [script(1, 'note')]: 'ALTER TABLE account ADD COLUMN note text;' });
    await other.query('SELECT pg_advisory_lock(7252310005)'); // as switch_outbox_partition
    await expect(migrateFrom(folder, database, 300)).rejects.toThrow(
      /^a lock could not be acquired within 0\.3 s\. .*\. The schema was migrated, but sequences may be too low: run migrate again$/,
    );
    expect(await versionOf(database)).toBe(newest + 1);
    await other.query('SELECT pg_advisory_unlock(7252310005)');
    expect(await migrateFrom(folder, database)).toMatchObject({ version: newest + 1, applied: [], changed: [] });
  });

  it('that cannot be had are given up with the name of who holds them', async () => {
    await withTraffic(async ({ database }) => {
      const folder = await scripts({ [script(1, 'note')]: 'ALTER TABLE account ADD COLUMN note text;' });
      await expect(migrateFrom(folder, database, 500)).rejects.toThrow(
        /^a lock could not be acquired within 0\.5 s\. The oldest holders of locks: process \d+ \(.*test.*\), in a transaction since .* UTC, on account/,
      );
      expect(await versionOf(database)).toBe(newest);
    });
  });

  it('of tables are not even asked for when there is nothing to do', async () => {
    const database = await createDatabase();
    const holder = await database.pool.connect();
    // As strong as one can be that lets catalogs be read: any lock on a table would wait for it.
    await holder.query('BEGIN');
    for (const table of [
      'account',
      'hold',
      'outbox',
      'ledger',
      'ledger_chain',
      'epoch',
      'idempotency_key',
      'relay_progress',
    ]) {
      await holder.query(`LOCK TABLE ${table} IN EXCLUSIVE MODE`);
    }
    expect(await migrateFrom(SCRIPTS, database, 0)).toMatchObject({ applied: [], changed: [], repaired: [] });
    await holder.query('ROLLBACK');
    holder.release();
  });

  it('of another runner are waited for, and named in the end', async () => {
    const database = await createDatabase({ migrated: false });
    const other = await database.pool.connect();
    await other.query('SELECT pg_advisory_lock(7252310001)');
    const { rows } = await other.query('SELECT pg_backend_pid() AS pid');
    await expect(migrateFrom(SCRIPTS, database, 300)).rejects.toThrow(
      new RegExp(
        `^another migrate has been running for 0\\.3 s: process ${rows[0].pid} \\(.*test.*\\)\\. Nothing was changed$`,
      ),
    );
    expect(await isEmpty(database)).toBe(true);
    const migrating = migrate(database.url);
    await until('it waits', async () => {
      const waiting = await database.pool.query(
        `SELECT FROM pg_stat_activity WHERE application_name ~ 'migrate$' AND datname = current_database()`,
      );
      return waiting.rowCount! > 0;
    });
    await other.query('SELECT pg_advisory_unlock(7252310001)');
    expect((await migrating).applied).toHaveLength(newest);
    other.release();
  });
});
