// The login roles of the processes: members of the group roles that the migrations make. No one
// else may connect to the database. No statement has a password in it, which a server that logs
// statements would keep, only what the server itself would store of it.
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import type { Client } from './database.ts';

/** The group roles whose rights each has. */
export const GROUPS = {
  api: ['balance_api'],
  worker: ['balance_worker'],
  /** For verify, heads, compare, replay and subscribers. */
  operator: ['balance_api', 'balance_auditor'],
} as const;

export interface Login {
  role: string;
  /** Of printable ASCII: PostgreSQL would normalize anything else first. */
  password: string;
  groups: readonly string[];
}

const PRINTABLE_ASCII = /^[\x21-\x7e]+$/;
export const isPassword = (text: string) => PRINTABLE_ASCII.test(text);

/**
 * Creates the roles that are missing, and sets the password of each. Idempotent, all or nothing.
 * The group roles have to exist. @returns those that were created.
 */
export async function createLogins(client: Client, logins: readonly Login[]): Promise<string[]> {
  const created: string[] = [];
  await client.query('BEGIN');
  try {
    for (const { role, password, groups } of logins) {
      if (!isPassword(password)) throw new Error(`the password of ${role} is not of printable ASCII`);
      const name = client.escapeIdentifier(role);
      const { rowCount } = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [role]);
      if (rowCount === 0) {
        await client.query(`CREATE ROLE ${name}`);
        created.push(role);
      }
      await client.query(`GRANT ${groups.map((group) => client.escapeIdentifier(group)).join(', ')} TO ${name}`);
      await client.query(`ALTER ROLE ${name} LOGIN PASSWORD ${client.escapeLiteral(verifierOf(password))}`);
    }
    await closeToOthers(
      client,
      logins.map(({ role }) => role),
    );
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  }
  return created;
}

/** Without effect, but for a notice, where the role that does it does not own the database. */
async function closeToOthers(client: Client, roles: readonly string[]): Promise<void> {
  // The owner of the tables may have been one of PUBLIC so far.
  const { rows } = await client.query(`
    SELECT quote_ident(current_database()) AS database, pg_get_userbyid(relowner) AS owner
    FROM pg_class WHERE oid = 'account'::regclass`);
  const [{ database, owner }] = rows;
  const names = [...roles, owner].map((role) => client.escapeIdentifier(role));
  await client.query(`REVOKE CONNECT, TEMPORARY ON DATABASE ${database} FROM PUBLIC`);
  await client.query(`GRANT CONNECT ON DATABASE ${database} TO ${names.join(', ')}`);
}

const ITERATIONS = 4096;
const SALT_BYTES = 16;

/** SCRAM-SHA-256, as PostgreSQL stores it: RFC 5803, section 3 of RFC 5802. */
function verifierOf(password: string): string {
  const salt = randomBytes(SALT_BYTES);
  const salted = pbkdf2Sync(password, salt, ITERATIONS, 32, 'sha256');
  const keyOf = (label: string) => createHmac('sha256', salted).update(label).digest();
  const stored = createHash('sha256').update(keyOf('Client Key')).digest();
  const [saltText, storedText, serverText] = [salt, stored, keyOf('Server Key')].map((bytes) =>
    bytes.toString('base64'),
  );
  return `SCRAM-SHA-256$${ITERATIONS}:${saltText}$${storedText}:${serverText}`;
}
