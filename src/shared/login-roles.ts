// The login roles of the processes: members of the group roles that the migrations make. No one
// else may connect to the database. No statement has a password in it, which a server that logs
// statements would keep, only what the server itself would store of it.
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto';
import { SettingsError } from './config.ts';
import type { Client } from './database.ts';

/** The group roles whose rights each has. */
export const GROUPS = {
  api: ['balance_api'],
  worker: ['balance_worker'],
  /** For verify, heads, compare, replay and subscribers. */
  operator: ['balance_api', 'balance_auditor'],
} as const;
export const ALL_GROUPS: readonly string[] = [...new Set(Object.values(GROUPS).flat())];

export interface Login {
  role: string;
  /** Of printable ASCII: PostgreSQL would normalize anything else first. */
  password: string;
  groups: readonly string[];
}

const PRINTABLE_ASCII = /^[\x21-\x7e]+$/;
export const isPassword = (text: string) => PRINTABLE_ASCII.test(text);

export interface LoginDone {
  role: string;
  created: boolean;
  groups: readonly string[];
  /** The group roles that it was in before, as the login of another process. */
  left: string[];
}

/**
 * Creates the roles that are missing, sets the password of each, and leaves it in its group roles
 * alone. Idempotent, all or nothing. The group roles have to exist.
 * @throws SettingsError for a login that would be in more groups, or could not connect.
 */
export async function createLogins(client: Client, logins: readonly Login[]): Promise<LoginDone[]> {
  const done: LoginDone[] = [];
  await client.query('BEGIN');
  try {
    for (const { role, password, groups } of logins) {
      if (!isPassword(password)) throw new Error(`the password of ${role} is not of printable ASCII`);
      const name = client.escapeIdentifier(role);
      const { rowCount } = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [role]);
      const created = rowCount === 0;
      if (created) await client.query(`CREATE ROLE ${name}`);
      await client.query(`GRANT ${groups.map((group) => client.escapeIdentifier(group)).join(', ')} TO ${name}`);
      const left = await leaveOtherGroups(client, role, groups);
      await client.query(`ALTER ROLE ${name} LOGIN PASSWORD ${client.escapeLiteral(verifierOf(password))}`);
      done.push({ role, created, groups, left });
    }
    const roles = logins.map(({ role }) => role);
    await closeToOthers(client, roles);
    await refuseLockedOut(client, roles);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  }
  return done;
}

/**
 * Of a login in other group roles, the grants that may be revoked. From PostgreSQL 16 on, each role
 * that granted a membership has a grant of its own, which only that role and its members revoke.
 */
const REVOCABLE = `
  SELECT pg_get_userbyid(roleid) AS "group", format('REVOKE %I FROM %I', pg_get_userbyid(roleid), $1::text)
         || CASE WHEN separate THEN format(' GRANTED BY %I', pg_get_userbyid(grantor)) ELSE '' END AS statement
  FROM pg_auth_members, (SELECT current_setting('server_version_num')::integer >= 160000 AS separate) version
  WHERE pg_get_userbyid(member) = $1 AND pg_get_userbyid(roleid) = ANY ($2)
    AND (NOT separate OR pg_has_role(grantor, 'USAGE'))
  ORDER BY 1, 2`;

/** What keeps a login in other group roles: itself, or another role that it is in, is a member. */
const REMAINING = `
  SELECT pg_get_userbyid(roleid) AS "group", pg_get_userbyid(member) AS member, pg_get_userbyid(grantor) AS grantor
  FROM pg_auth_members
  WHERE pg_get_userbyid(roleid) = ANY ($2) AND pg_has_role($1::name, member, 'MEMBER')
  ORDER BY pg_get_userbyid(member) <> $1, 1, 2, 3`;

/** @returns those that it was in. */
async function leaveOtherGroups(client: Client, role: string, groups: readonly string[]): Promise<string[]> {
  const others = ALL_GROUPS.filter((group) => !groups.includes(group));
  const { rows } = await client.query(REVOCABLE, [role, others]);
  for (const { statement } of rows) await client.query(statement);
  const { rows: remaining } = await client.query(REMAINING, [role, others]);
  if (remaining.length > 0) {
    const [{ group, member, grantor }] = remaining;
    const quoted = (name: string) => client.escapeIdentifier(name);
    throw new SettingsError(
      member === role
        ? `${role} would stay in ${group}, which ${grantor} granted and DATABASE_URL's user may not revoke: have ${grantor}, or an administrator, ` +
            `run REVOKE ${quoted(group)} FROM ${quoted(role)} GRANTED BY ${quoted(grantor)}, and then run this again`
        : `${role} would stay in ${group}, because it is in ${member}: take it out of ${member}, or name another user`,
    );
  }
  return [...new Set(rows.map(({ group }) => group as string))];
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

/** Where the GRANT was without effect, and PUBLIC may not connect either. */
async function refuseLockedOut(client: Client, roles: readonly string[]): Promise<void> {
  const { rows } = await client.query(
    `SELECT rolname AS role, current_user AS "user", datname AS database, pg_get_userbyid(datdba) AS owner
     FROM pg_roles, pg_database
     WHERE rolname = ANY ($1) AND datname = current_database() AND NOT has_database_privilege(pg_roles.oid, pg_database.oid, 'CONNECT')
     ORDER BY 1`,
    [roles],
  );
  if (rows.length === 0) return;
  const [{ user, database, owner }] = rows;
  const [databaseName, userName] = [database, user].map((name) => client.escapeIdentifier(name));
  throw new SettingsError(
    `${rows.map(({ role }) => role).join(', ')} could not connect to the database ${database}, and ${user}, the user of DATABASE_URL, may not grant that: ` +
      `run this as ${owner}, who owns the database, or have ${owner}, or an administrator, ` +
      `run GRANT CONNECT ON DATABASE ${databaseName} TO ${userName} WITH GRANT OPTION, and then run this again`,
  );
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
