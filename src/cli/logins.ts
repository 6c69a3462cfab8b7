// highload-balance logins: creates the login roles that the URLs of the processes name. Its
// --help is the reference.
import type pg from 'pg';
import { type LoginSettings, readLoginSettings, SettingsError } from '../shared/config.ts';
import { addressOf } from '../shared/database-url.ts';
import { ALL_GROUPS, createLogins, GROUPS, isPassword, type Login } from '../shared/login-roles.ts';
import { isDenied } from '../shared/sqlstate.ts';
import { runCommand, withDatabase } from './command.ts';
import { takesNoOptions } from './command-line.ts';
import { print } from './output.ts';

takesNoOptions(`usage: highload-balance logins

Creates the login roles of the processes, sets their passwords and puts each into its group role. User and password
are those of the URLs that the processes get:

  API_DATABASE_URL         of the API and the relay
  WORKER_DATABASE_URL      of the worker
  OPERATOR_DATABASE_URL    for verify, heads, compare, replay and subscribers; may be left out

Each may be in a file instead, named by the same variable with _FILE after it. Run it after migrate, as the role that
migrates or another one that may create roles: DATABASE_URL. Idempotent, all or nothing: to change a password, change
the URL and run it again. A second user for a process, to change without a pause, is another URL.

A user is in the group roles of its process alone afterwards: where it was the user of another process, it leaves that
one's, and the output says so. Refused is a user who may do more than a process: a superuser, a role that may create
roles, and one that owns the database, its schema or the tables, or is a member of the owner.

Only these roles and the owner of the tables may connect to the database afterwards: what PUBLIC was granted is
revoked, if the role owns the database. Grant CONNECT to others that need it, such as an exporter of metrics. A role
that does not own the database needs CONNECT WITH GRANT OPTION once PUBLIC may not connect.

exit code: 0 done; 1 refused, nothing was changed; 2 called incorrectly`);

const STATEMENT_TIMEOUT_MS = 10_000;

const VARIABLES = {
  apiDatabaseUrl: { variable: 'API_DATABASE_URL', groups: GROUPS.api },
  workerDatabaseUrl: { variable: 'WORKER_DATABASE_URL', groups: GROUPS.worker },
  operatorDatabaseUrl: { variable: 'OPERATOR_DATABASE_URL', groups: GROUPS.operator },
} as const;

/** Who the session is, and which of the roles may do more than their group. */
const FACTS = `
  SELECT session_user AS "user", current_database() AS database, to_regclass('account') IS NOT NULL AS migrated,
         ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY ($1) AND (rolsuper OR rolcreaterole OR rolbypassrls)) AS powerful`;

/** Which of the roles are, or may become, the owner of what the service has: it could remove the triggers. */
const OWNERS = `
  WITH owned (place, what, owner) AS (
    SELECT 1, 'the tables', relowner FROM pg_class
    WHERE relkind IN ('r', 'p') AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'account'::regclass)
      AND EXISTS (SELECT FROM aclexplode(relacl) WHERE pg_get_userbyid(grantee) = ANY ($2))
    UNION SELECT 2, 'the database', datdba FROM pg_database WHERE datname = current_database()
    UNION SELECT 3, 'the schema', nspowner FROM pg_namespace
    WHERE oid = (SELECT relnamespace FROM pg_class WHERE oid = 'account'::regclass)
  )
  SELECT DISTINCT ON (rolname) rolname AS role, what, pg_get_userbyid(owner) AS owner
  FROM owned JOIN pg_roles ON pg_has_role(pg_roles.oid, owned.owner, 'MEMBER')
  WHERE rolname = ANY ($1)
  ORDER BY rolname, place`;

/** @throws SettingsError that says which URL is no login of a process. */
async function checkedLogins(client: pg.Client, settings: LoginSettings): Promise<Login[]> {
  const wanted = (Object.keys(VARIABLES) as (keyof typeof VARIABLES)[]).flatMap((name) => {
    const url = settings[name];
    return url === undefined ? [] : [{ ...VARIABLES[name], ...addressOf(url) }];
  });
  const { rows } = await client.query(FACTS, [wanted.map(({ user }) => user)]);
  const [{ user: own, database, migrated, powerful }] = rows;
  if (!migrated) throw new SettingsError('The database has no tables yet. Run migrate first');
  const { rows: owners } = await client.query(OWNERS, [wanted.map(({ user }) => user), ALL_GROUPS]);
  const seen = new Map<string, string>();
  return wanted.map(({ variable, user: role, password, database: named, groups }) => {
    const refuse = (why: string) => new SettingsError(`${variable} ${why}`);
    if (named !== database) throw refuse(`names the database ${named}, and DATABASE_URL ${database}`);
    if (role === own) throw refuse(`has the user of DATABASE_URL, ${role}: give each process a user of its own`);
    if (powerful.includes(role)) throw refuse(`has the user ${role}, who may do more than a process: name another one`);
    if (ALL_GROUPS.includes(role)) throw refuse(`has the user ${role}, a group role: name a user of its own`);
    const owning = owners.find((owner) => owner.role === role);
    if (owning) {
      const how =
        owning.owner === role ? `owns ${owning.what}` : `is a member of ${owning.owner}, who owns ${owning.what}`;
      throw refuse(
        `has the user ${role}, who ${how}: name another one, because an owner can remove what guards the ledger`,
      );
    }
    if (seen.has(role)) throw refuse(`has the same user as ${seen.get(role)}: give each process a user of its own`);
    seen.set(role, variable);
    if (password === undefined) throw refuse(`has no password for ${role}`);
    if (!isPassword(password)) throw refuse(`has a password for ${role} that is not of printable ASCII`);
    return { role, password, groups };
  });
}

await runCommand(async () => {
  const settings = readLoginSettings();
  await withDatabase(
    'logins',
    async (client) => {
      const logins = await checkedLogins(client, settings);
      const done = await createLogins(client, logins).catch((error) => {
        throw isDenied(error)
          ? new SettingsError(`${error.message}: use a DATABASE_URL whose role may create roles, such as migrate's`)
          : error;
      });
      for (const { role, created, groups, left } of done) {
        const leaves = left.length > 0 ? `, no longer in ${left.join(' and ')}` : '';
        print(`${role}: ${created ? 'created' : 'password set'}, in ${groups.join(' and ')}${leaves}`);
      }
    },
    { statementTimeoutMs: STATEMENT_TIMEOUT_MS },
  );
});
