// The login roles of the API and the worker in the embedded database: members of the group roles that the migrations
// make, each with a password that lives as long as the run.
import { randomBytes } from 'node:crypto';
import { openClient } from '../shared/database.ts';

const GROUPS = { api: 'balance_api', worker: 'balance_worker' } as const;

export interface DatabaseLogins {
  /** URLs to the same database. */
  api: string;
  worker: string;
}

/** Makes what is missing and gives new passwords. @param ownerUrl of whoever may create roles. */
export async function createDatabaseLogins(ownerUrl: string): Promise<DatabaseLogins> {
  const client = await openClient(ownerUrl, 'start');
  try {
    const login = async (group: string): Promise<string> => {
      const url = new URL(ownerUrl);
      url.username = `${group}_login`;
      url.password = randomBytes(18).toString('base64url');
      const { rowCount } = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [url.username]);
      if (rowCount === 0) await client.query(`CREATE ROLE ${url.username} IN ROLE ${group}`);
      await client.query(`ALTER ROLE ${url.username} LOGIN PASSWORD '${url.password}'`);
      return url.href;
    };
    return { api: await login(GROUPS.api), worker: await login(GROUPS.worker) };
  } finally {
    await client.end();
  }
}
