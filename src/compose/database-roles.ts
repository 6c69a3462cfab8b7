// The roles of PostgreSQL, as a superuser creates them before the first migration and again at each
// start: an owner that is not a superuser, only for migrate and keys, and login roles for the
// processes. docs/secure.md describes the same for your own server.
import { GROUPS } from '../shared/login-roles.ts';
import type { Passwords } from './passwords.ts';

type Holder = keyof Passwords['database'];

export const DATABASE = 'balance';

/** The login role of each, and the group roles whose rights it has. */
const LOGINS: Record<Holder, { login: string; groups: readonly string[] }> = {
  owner: { login: 'balance', groups: [] },
  api: { login: 'balance_api_login', groups: GROUPS.api },
  worker: { login: 'balance_worker_login', groups: GROUPS.worker },
  operator: { login: 'balance_operator_login', groups: GROUPS.operator },
};

export const databaseUrlOf = (holder: Holder, password: string, host: string) =>
  `postgres://${LOGINS[holder].login}:${password}@${host}/${DATABASE}`;

/** Idempotent. */
export function rolesScript(passwords: Passwords['database']): string {
  const logins = Object.values(LOGINS);
  const roles = [...new Set(logins.flatMap(({ login, groups }) => [...groups, login]))];
  const others = logins.map(({ login }) => login).filter((login) => login !== LOGINS.owner.login);
  return `SET client_min_messages = warning;
DO $do$
DECLARE
  v_role text;
BEGIN
  FOREACH v_role IN ARRAY ARRAY[${roles.map((role) => `'${role}'`).join(', ')}] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_role) THEN
      EXECUTE format('CREATE ROLE %I', v_role);
    END IF;
  END LOOP;
END
$do$;
${logins.flatMap(({ login, groups }) => groups.map((group) => `GRANT ${group} TO ${login};`)).join('\n')}
${(Object.keys(LOGINS) as Holder[]).map((holder) => `ALTER ROLE ${LOGINS[holder].login} LOGIN PASSWORD '${passwords[holder]}';`).join('\n')}
ALTER DATABASE ${DATABASE} OWNER TO ${LOGINS.owner.login};
-- No one else may connect, neither there nor to the databases that come with a server.
REVOKE CONNECT, TEMPORARY ON DATABASE ${DATABASE}, postgres, template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE ${DATABASE} TO ${others.join(', ')};
`;
}
