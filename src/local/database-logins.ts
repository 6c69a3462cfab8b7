// The login roles of the API and the worker in the embedded database, each with a password that is
// valid for one run. No one else but the superuser may connect.
import { randomBytes } from 'node:crypto';
import { openClient } from '../shared/database.ts';
import { createLogins, GROUPS } from '../shared/login-roles.ts';

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
  const login = (process: keyof DatabaseLogins) => {
    const url = new URL(ownerUrl);
    url.username = `balance_${process}_login`;
    url.password = randomBytes(18).toString('base64url');
    return { url: url.href, role: url.username, password: url.password, groups: GROUPS[process] };
  };
  const [api, worker] = [login('api'), login('worker')];
  const client = await openClient(ownerUrl, 'start');
  try {
    await createLogins(client, [api, worker]);
  } finally {
    await client.end();
  }
  return { api: api.url, worker: worker.url };
}
