// Applies the roles and grants of migrations/grants.sql at every migrate, and names those that had
// been lost.
import type pg from 'pg';
import { noteApplied, runFile } from './declared-files.ts';
import { MigrationError } from './migration-error.ts';
import type { DeclaredFile } from './migration-files.ts';
import { isGrantWithoutEffect, type Notice } from './sqlstate.ts';

/** By object, worded as `<privilege> to <role>`. */
export type Grants = Map<string, Set<string>>;

const GRANTS = `
  SELECT object.name, acl.privilege_type AS privilege, CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(acl.grantee) END AS role,
         pg_get_userbyid(acl.grantor) AS grantor
  FROM (
    SELECT relname AS name, relnamespace AS namespace, relowner AS owner,
           coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) AS acl
    FROM pg_class WHERE relkind IN ('r', 'p', 'S')
    UNION ALL
    SELECT format('%s.%s', relname, attname), relnamespace, relowner, attacl
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE attnum > 0 AND relkind IN ('r', 'p')
    UNION ALL
    SELECT proname || '()', pronamespace, proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
    UNION ALL
    SELECT 'schema ' || nspname, oid, nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
  ) object
  JOIN pg_namespace namespace ON namespace.oid = object.namespace AND namespace.nspname = current_schema
  LEFT JOIN LATERAL aclexplode(object.acl) acl ON acl.grantee <> object.owner`;
const FOREIGN = `${GRANTS}
  WHERE acl.grantor <> object.owner AND (acl.grantee = 0 OR pg_get_userbyid(acl.grantee) IN ('balance_api', 'balance_worker', 'balance_auditor'))`;

/** Of every object in the schema; one without grants has an empty set. */
export async function readGrants(client: pg.Client): Promise<Grants> {
  const { rows } = await client.query<{ name: string; privilege: string | null; role: string }>(GRANTS);
  const grants: Grants = new Map();
  for (const { name, privilege, role } of rows) {
    const granted = grants.get(name) ?? new Set();
    if (privilege !== null) granted.add(`${privilege} to ${role}`);
    grants.set(name, granted);
  }
  return grants;
}

/**
 * Applies the file, and rolls it back if it changed nothing, so that nothing is written.
 * @param isWriting whether this run has changed anything else: then nothing is gained by that, and
 * updates may wait for this run.
 * @returns whether the file has a new text.
 * @throws MigrationError that names the file, or what could not be granted.
 */
export async function applyGrants(
  client: pg.Client,
  file: DeclaredFile,
  applied: ReadonlyMap<string, string>,
  isWriting: boolean,
): Promise<boolean> {
  const isChanged = applied.get(file.name) !== file.sha256;
  const before = isChanged || isWriting ? undefined : await readGrants(client);
  const warnings: string[] = [];
  const onNotice = (notice: Notice & { message?: string | undefined }) => {
    if (isGrantWithoutEffect(notice)) warnings.push(String(notice.message));
  };
  client.on('notice', onNotice);
  if (before) await client.query('SAVEPOINT grants');
  try {
    await runFile(client, file);
  } finally {
    client.off('notice', onNotice);
  }
  if (isChanged) await noteApplied(client, [file]);
  if (warnings.length > 0) {
    throw new MigrationError(`migrations/${file.name} had no effect, nothing was changed: ${warnings.join('; ')}`);
  }
  if (before && differencesOf(before, await readGrants(client)).length === 0)
    await client.query('ROLLBACK TO SAVEPOINT grants');
  return isChanged;
}

/**
 * Grants made by another role with a grant option: the owner's REVOKE in the file does not affect
 * them.
 */
export async function refuseForeignGrants(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ privilege: string; name: string; role: string; grantor: string }>(FOREIGN);
  const [first] = rows;
  if (!first) return;
  const { privilege, name, role, grantor } = first;
  throw new MigrationError(
    `${privilege} on ${name} was granted to ${role} by ${grantor}, and ${rows.length - 1} more such grants: nothing was changed. ` +
      `Revoke what ${grantor} may grant, with CASCADE, then run this again`,
  );
}

/** Missing or excess grants of objects that already existed, as corrected: one sentence for each role and privilege. */
export function differencesOf(before: Grants, after: Grants): string[] {
  const missing = new Map<string, string[]>();
  const excessive = new Map<string, string[]>();
  for (const [name, granted] of after) {
    const had = before.get(name);
    if (!had) continue;
    for (const grant of granted) if (!had.has(grant)) missing.set(grant, [...(missing.get(grant) ?? []), name]);
    for (const grant of had) if (!granted.has(grant)) excessive.set(grant, [...(excessive.get(grant) ?? []), name]);
  }
  const sentences = (grants: Map<string, string[]>, had: string, done: string) =>
    [...grants].sort().map(([grant, names]) => `${had} ${grant} on ${names.sort().join(', ')}: ${done}`);
  return [...sentences(missing, 'lost:', 'granted again'), ...sentences(excessive, 'too much:', 'revoked')];
}
