// Brings a database to the newest schema: postgrator, inside one transaction and behind one lock. Two runners at once
// are safe (the second finds nothing to do) and a script that fails leaves nothing behind.
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import Postgrator from 'postgrator';
import { openClient } from './database.ts';

const MIGRATIONS_FOLDER = fileURLToPath(new URL('../../migrations/', import.meta.url));
const LOCK_TIMEOUT_MS = 60_000;
/** Any number, the same for every runner. Advisory locks are per database. */
const LOCK_KEY = 7_252_310_001;

export interface MigrationResult {
  /** Schema version afterwards: the number of the newest script. */
  version: number;
  /** Names of the scripts that this call ran. */
  applied: string[];
}

/** Thrown when the database and the scripts do not fit together; says what to do. */
export class MigrationError extends Error {
  override name = 'MigrationError';
}

/**
 * Runs the scripts that the database lacks. Safe to repeat and to run concurrently.
 * @param folder where the scripts are; tests give their own.
 * @throws MigrationError when a script fails or was changed after it ran, or the database is newer than the scripts.
 */
export async function migrate(
  databaseUrl: string,
  log: (line: string) => void = () => {},
  folder: string = MIGRATIONS_FOLDER,
): Promise<MigrationResult> {
  try {
    return await migrateOnce(databaseUrl, log, folder);
  } catch (error) {
    // Roles belong to the whole server. Where another database's migration makes one at this moment, PostgreSQL can find that it
    // exists and a statement later that it does not: its cache remembers the first look for as long as the transaction.
    if (((error as Error).cause as { code?: string } | undefined)?.code !== UNDEFINED_OBJECT) throw error;
    return await migrateOnce(databaseUrl, log, folder);
  }
}

const UNDEFINED_OBJECT = '42704';

async function migrateOnce(databaseUrl: string, log: (line: string) => void, folder: string): Promise<MigrationResult> {
  const client = await openClient(databaseUrl, 'migrate');
  try {
    await client.query('BEGIN ISOLATION LEVEL READ COMMITTED');
    await client.query(`SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`);
    await client.query('SELECT pg_advisory_xact_lock($1)', [LOCK_KEY]);
    const result = await runScripts(client, folder, log);
    await client.query('COMMIT');
    return result;
  } finally {
    await client.end(); // without COMMIT this rolls back
  }
}

/** The version that this release of the code needs. */
export async function expectedSchemaVersion(): Promise<number> {
  const scripts = await new Postgrator({ driver: 'pg', migrationPattern: pattern(MIGRATIONS_FOLDER) }).getMigrations();
  return newest(scripts);
}

async function runScripts(client: pg.Client, folder: string, log: (line: string) => void): Promise<MigrationResult> {
  const schema: string = (await client.query('SELECT current_schema AS name')).rows[0].name;
  const postgrator = new Postgrator({
    driver: 'pg',
    migrationPattern: pattern(folder),
    schemaTable: `${schema}.schemaversion`,
    newline: 'LF',
    execQuery: (sql) => client.query(sql),
  });
  const scripts = await postgrator.getMigrations();
  if (scripts.length === 0) throw new MigrationError(`no migration scripts in ${folder}`);
  const target = newest(scripts);
  const present = await postgrator.getDatabaseVersion();
  if (present > target) {
    throw new MigrationError(
      `the database has schema version ${present}, this release knows ${target}: use a newer release`,
    );
  }
  // postgrator looks only above the present version, so a hole would be passed over in silence.
  for (let version = 1; version <= target; version += 1) {
    if (!scripts.some((script) => script.version === version && script.action === 'do')) {
      throw new MigrationError(`migration script ${version} is missing in ${folder}`);
    }
  }
  let current = '';
  postgrator.on('migration-started', (script) => {
    current = `${script.version} ${script.name}`;
    log(`migration ${current}`);
  });
  try {
    const applied = await postgrator.migrate();
    return { version: target, applied: applied.map((script) => script.name) };
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new MigrationError(`migration ${current} failed, nothing was changed: ${reason}`, { cause });
  }
}

function newest(scripts: Postgrator.Migration[]): number {
  return Math.max(0, ...scripts.map((script) => script.version));
}

/** postgrator takes a glob: the folder's own brackets and stars must not count as one. */
function pattern(folder: string): string {
  return `${folder.replace(/[?*()[\]{}!+@]/g, '[$&]').replace(/\/?$/, '/')}*.sql`;
}
