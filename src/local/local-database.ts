// The database of the local system: the embedded one, or the one that DATABASE_URL names. Only the embedded one is ever
// stopped.
import { type Client, openClient } from '../shared/database.ts';
import { serverOf } from '../shared/database-url.ts';
import { UnreleasedDatabase } from '../shared/migration-error.ts';
import { migrate } from '../shared/migrations.ts';
import { createDatabaseLogins, type DatabaseLogins } from './database-logins.ts';
import { OldData } from './old-data.ts';
import { startPostgres } from './postgres.ts';
import { isAlive } from './process-end.ts';
import type { Revival } from './server-revival.ts';
import { SetupProblem } from './setup-problem.ts';

const POSTGRES_PORT_PREFERRED = 15_432;
/** For root, whose server runs under an account that may be unable to enter the data folder. */
export const SHARED_DIR = '/var/lib/highload-balance';
const CONNECT_TIMEOUT_MS = 10_000;

export interface Database {
  /** Of the owner. */
  url: string;
  /** Of the processes; called once the schema is there. */
  logins: () => Promise<DatabaseLogins>;
  description: string;
  stop: () => Promise<void>;
  /** Absent if the server is not ours to restart. */
  revival?: Revival;
}

/** @param interrupted cancels the start; a started server is stopped again. */
export async function embeddedDatabase(
  dir: string,
  say: (line: string) => void,
  interrupted: AbortSignal,
): Promise<Database> {
  const settings = { dir, sharedDir: SHARED_DIR, port: POSTGRES_PORT_PREFERRED, database: 'balance', say };
  let server = await startPostgres({ ...settings, interrupted });
  return {
    url: server.url,
    logins: () => createDatabaseLogins(server.url),
    description: `embedded, port ${server.port}, data in ${server.dataDir}`,
    stop: () => server.stop(),
    revival: {
      isRunning: () => isAlive(server.process),
      start: async () => {
        server = await startPostgres({ ...settings, portFixed: true, interrupted });
      },
    },
  };
}

/** @param url a correct one. @throws SetupProblem */
export async function givenDatabase(url: string): Promise<Database> {
  const where = serverOf(url);
  try {
    const client = await openClient(url, 'start', { statementTimeoutMs: CONNECT_TIMEOUT_MS });
    const version = await versionOf(client).finally(() => client.end());
    const description = `${version} at ${where} (DATABASE_URL)`;
    // An external server: no role is created there, and the processes use the login of the URL.
    return { url, logins: async () => ({ api: url, worker: url }), description, stop: () => Promise.resolve() };
  } catch (cause) {
    const { message, code } = cause as NodeJS.ErrnoException;
    throw new SetupProblem(
      `The PostgreSQL at ${where} (DATABASE_URL) cannot be used: ${message || code}. Correct DATABASE_URL, or unset it to use the embedded one.`,
      { cause },
    );
  }
}

async function versionOf(client: Client): Promise<string> {
  return (await client.query("SELECT current_setting('server_version') AS version")).rows[0].version;
}

/** @throws OldData if the embedded one is from an unreleased version, otherwise SetupProblem. */
export async function migrateDatabase({ url, revival }: Database, say: (line: string) => void): Promise<void> {
  try {
    const { version, applied, changed, repaired } = await migrate(url);
    const news = applied.length + changed.length;
    if (news > 0) say(`Schema: version ${version}, ${news} new`);
    for (const sentence of repaired) say(`Schema: ${sentence}`);
  } catch (cause) {
    if (cause instanceof UnreleasedDatabase && revival) throw new OldData(cause);
    throw new SetupProblem(`The database could not be migrated: ${(cause as Error).message}`, { cause });
  }
}
