// The login roles of the API and the worker in the embedded database: members of the group roles
// that the migrations make, each with a password that is valid for one run. No one else but the
// superuser may connect.
import { randomBytes } from 'node:crypto';
import { type Client, openClient } from '../shared/database.ts';

const GROUPS = { api: 'balance_api', worker: 'balance_worker' } as const;

export interface DatabaseLogins {
  /** URLs to the same database. */
  api: string;
  worker: string;
}

/**
 * Creates what is missing and sets new passwords. @param ownerUrl of a role that may create roles.
 *
 */
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
    const logins = { api: await login(GROUPS.api), worker: await login(GROUPS.worker) };
    await closeToOthers(client);
    return logins;
  } finally {
    await client.end();
  }
}

async function closeToOthers(client: Client): Promise<void> {
  const { rows } = await client.query('SELECT quote_ident(current_database()) AS database');
  const { database } = rows[0];
  const logins = Object.values(GROUPS).map((group) => `${group}_login`);
  await client.query(`REVOKE CONNECT, TEMPORARY ON DATABASE ${database} FROM PUBLIC`);
  await client.query(`GRANT CONNECT ON DATABASE ${database} TO ${logins.join(', ')}`);
}
