// highload-balance logins: creates the login roles that the URLs of the processes name. Its
// --help is the reference.
import type pg from 'pg';
import { type LoginSettings, readLoginSettings, SettingsError } from '../shared/config.ts';
import { addressOf } from '../shared/database-url.ts';
import { createLogins, GROUPS, isPassword, type Login } from '../shared/login-roles.ts';
import { isDenied } from '../shared/sqlstate.ts';
import { runCommand, withDatabase } from './command.ts';
import { takesNoOptions } from './command-line.ts';

takesNoOptions(`usage: highload-balance logins

Creates the login roles of the processes, sets their passwords and puts each into its group role. User and password
are those of the URLs that the processes get:

  API_DATABASE_URL         of the API and the relay
  WORKER_DATABASE_URL      of the worker
  OPERATOR_DATABASE_URL    for verify, heads, compare, replay and subscribers; may be left out

Each may be in a file instead, named by the same variable with _FILE after it. Run it after migrate, as the role that
migrates or another one that may create roles: DATABASE_URL. Idempotent, all or nothing: to change a password, change
the URL and run it again. A second user for a process, to change without a pause, is another URL.

Only these roles and the owner of the tables may connect to the database afterwards: what PUBLIC was granted is
revoked, if the role owns the database. Grant CONNECT to others that need it, such as an exporter of metrics.

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

/** @throws SettingsError that says which URL is no login of a process. */
async function checkedLogins(client: pg.Client, settings: LoginSettings): Promise<Login[]> {
  const wanted = (Object.keys(VARIABLES) as (keyof typeof VARIABLES)[]).flatMap((name) => {
    const url = settings[name];
    return url === undefined ? [] : [{ ...VARIABLES[name], ...addressOf(url) }];
  });
  const { rows } = await client.query(FACTS, [wanted.map(({ user }) => user)]);
  const [{ user: own, database, migrated, powerful }] = rows;
  if (!migrated) throw new SettingsError('The database has no tables yet. Run migrate first');
  const seen = new Map<string, string>();
  return wanted.map(({ variable, user: role, password, database: named, groups }) => {
    const refuse = (why: string) => new SettingsError(`${variable} ${why}`);
    if (named !== database) throw refuse(`names the database ${named}, and DATABASE_URL ${database}`);
    if (role === own) throw refuse(`has the user of DATABASE_URL, ${role}: give each process a user of its own`);
    if (powerful.includes(role)) throw refuse(`has the user ${role}, who may do more than a process: name another one`);
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
      const created = await createLogins(client, logins).catch((error) => {
        throw isDenied(error)
          ? new SettingsError(`${error.message}: use a DATABASE_URL whose role may create roles, such as migrate's`)
          : error;
      });
      for (const { role, groups } of logins)
        console.log(`${role}: ${created.includes(role) ? 'created' : 'password set'}, in ${groups.join(' and ')}`);
    },
    { statementTimeoutMs: STATEMENT_TIMEOUT_MS },
  );
});
