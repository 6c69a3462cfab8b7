// Brings a database to the schema of this release: the numbered scripts that it lacks (by
// postgrator), the function files and grants that differ. All in one transaction, one runner at a
// time: any number may start together, a run that fails changes nothing, and updates in flight
// never wait long. What was lost in the meantime (a restore without grants) is repaired and named.
import type pg from 'pg';
import Postgrator from 'postgrator';
import { DatabaseError, openClient } from './database.ts';
import { applyFunctions, readApplied, readCatalog } from './declared-files.ts';
import { applyGrants, differencesOf, type Grants, readGrants, refuseForeignGrants } from './grants.ts';
import { prepareDatabase } from './migration-checks.ts';
import { MigrationError, scriptFailed } from './migration-error.ts';
import { MIGRATIONS_FOLDER, type MigrationFiles, readMigrationFiles } from './migration-files.ts';
import { raiseSequences } from './sequences.ts';
import { inShortTries } from './short-tries.ts';
import { isLoss } from './sqlstate.ts';
import { unlessSessionsWait } from './waiters-watch.ts';

export interface MigrationResult {
  /** Schema version afterwards: the number of the newest script. */
  version: number;
  /** Names of the numbered scripts that this call ran. */
  applied: string[];
  /** Function files, and grants.sql, that were applied because their text is new. */
  changed: string[];
  /**
   * Functions, triggers, grants and positions that had changed since the last run and were
   * repaired, one sentence each.
   */
  repaired: string[];
}

/**
 * Idempotent, and safe to run concurrently.
 * @param log gets the name of each script and file that was applied, after the commit.
 * @param folder where the scripts are; tests give their own.
 * @param giveUpMs how long locks are waited for; a minute by default.
 * @throws MigrationError when the database or a script does not allow it; it says whether anything was
 * changed.
 */
export async function migrate(
  databaseUrl: string,
  log: (line: string) => void = () => {},
  folder: string = MIGRATIONS_FOLDER,
  giveUpMs?: number,
): Promise<MigrationResult> {
  const files = await readMigrationFiles(folder);
  const client = await openClient(databaseUrl, 'migrate');
  try {
    return await migrateBeside(client, await openClient(databaseUrl, 'migrate watch'), files, log, giveUpMs);
  } finally {
    await client.end();
  }
}

/** @param watcher ended by this. */
async function migrateBeside(
  client: pg.Client,
  watcher: pg.Client,
  files: MigrationFiles,
  log: (line: string) => void,
  giveUpMs: number | undefined,
): Promise<MigrationResult> {
  try {
    const { pid } = (await client.query('SELECT pg_catalog.pg_backend_pid() AS pid')).rows[0];
    let lines: string[] = [];
    const work = () => {
      lines = [];
      return migrateOnce(client, files, (line) => lines.push(line));
    };
    const done = await inShortTries(client, () => unlessSessionsWait(client, watcher, pid, work), giveUpMs);
    for (const line of lines) log(line);
    return await finish(client, files, done, giveUpMs);
  } catch (error) {
    if (!(error instanceof DatabaseError) || isLoss(error)) throw error; // the caller describes a loss
    throw new MigrationError(`PostgreSQL refused a step, nothing was changed: ${error.message}`, { cause: error });
  } finally {
    await watcher.end();
  }
}

/** The version that this release of the code needs. */
export async function expectedSchemaVersion(): Promise<number> {
  return (await readMigrationFiles()).scripts.length;
}

interface Done extends MigrationResult {
  /** Before the first change; undefined where grants.sql is new. */
  grantsBefore: Grants | undefined;
}

const AFTER_COMMIT = 'The schema was migrated, but sequences may be too low: run migrate again';

/** A script may drop a function, or a table with its triggers. */
const CHANGES_FUNCTIONS = /\b(DROP|FUNCTION|TRIGGER)\b/i;

/**
 * From the numbered scripts on, updates may wait for the tables that they change: what needs no lock
 * is done before, or by `finish`, and the rest in few round trips.
 */
async function migrateOnce(client: pg.Client, files: MigrationFiles, log: (line: string) => void): Promise<Done> {
  await prepareDatabase(client, files);
  await refuseForeignGrants(client);
  const before = await readGrants(client);
  const texts = await readApplied(client);
  const catalogBefore = await readCatalog(client);
  const applied = await runScripts(client, files, log);
  const mayDiffer = files.scripts.some(({ name, sql }) => applied.includes(name) && CHANGES_FUNCTIONS.test(sql));
  const catalog = mayDiffer ? await readCatalog(client) : catalogBefore;
  const { changed, repaired } = await applyFunctions(client, files, texts, catalog, log);
  const isWriting = applied.length + changed.length + repaired.length > 0;
  const isChanged = await applyGrants(client, files.grants, texts, isWriting);
  if (isChanged) {
    changed.push(files.grants.name);
    log(files.grants.name);
  }
  return { version: files.scripts.length, applied, changed, repaired, grantsBefore: isChanged ? undefined : before };
}

/** After the commit: sequences are not part of a transaction anyway. Nothing waits for its locks. */
async function finish(
  client: pg.Client,
  files: MigrationFiles,
  { grantsBefore, repaired, ...done }: Done,
  giveUpMs: number | undefined,
): Promise<MigrationResult> {
  const work = async () => {
    await prepareDatabase(client, files);
    const grants = grantsBefore ? differencesOf(grantsBefore, await readGrants(client)) : [];
    return [...repaired, ...grants, ...(await raiseSequences(client))];
  };
  try {
    return { ...done, repaired: await inShortTries(client, work, giveUpMs, AFTER_COMMIT) };
  } catch (error) {
    if (error instanceof MigrationError || !(error instanceof DatabaseError) || isLoss(error)) throw error;
    throw new MigrationError(`PostgreSQL refused to raise the sequences: ${error.message}. ${AFTER_COMMIT}`, {
      cause: error,
    });
  }
}

/**
 * Created as postgrator does, but without CREATE SCHEMA, which the owner of a schema may not be
 * allowed to run.
 */
const VERSION_TABLE = `
  CREATE TABLE schemaversion (version bigint PRIMARY KEY, name text, md5 text, run_at timestamptz);
  INSERT INTO schemaversion (version) VALUES (0)`;

/** @returns the names of those that ran. */
async function runScripts(client: pg.Client, files: MigrationFiles, log: (line: string) => void): Promise<string[]> {
  const { rows } = await client.query(`SELECT to_regclass('schemaversion') IS NOT NULL AS "isThere"`);
  if (!rows[0].isThere) await client.query(VERSION_TABLE);
  const postgrator = new Postgrator({
    driver: 'pg',
    migrationPattern: pattern(files.folder),
    schemaTable: 'schemaversion', // the first one of the search_path, which is our schema's
    newline: 'LF',
    execQuery: (sql) => client.query(sql),
  });
  let current: Postgrator.Migration | undefined;
  postgrator.on('migration-started', (script) => {
    current = script;
    log(`migration ${script.version} ${script.name}`);
  });
  try {
    return (await postgrator.migrate()).map(({ name }) => name);
  } catch (cause) {
    const script = files.scripts.find(({ version }) => version === current?.version);
    if (script)
      throw scriptFailed(`${String(script.version).padStart(3, '0')}.do.${script.name}.sql`, script.sql, cause);
    const number = /MD5 checksum failed for migration \[(\d+)\]/.exec((cause as Error).message)?.[1];
    if (number === undefined) throw cause;
    throw new MigrationError(
      `migration script ${number} is not the one that created this database (its MD5 differs): a script must never change once ` +
        'it ran. Nothing was changed. Use the release that created the database, or an empty database',
      { cause },
    );
  }
}

/** postgrator takes a glob: the folder's own brackets and stars must not count as one. */
function pattern(folder: string): string {
  return `${folder.replace(/[?*()[\]{}!+@]/g, '[$&]').replace(/\/?$/, '/')}*.do.*.sql`;
}
