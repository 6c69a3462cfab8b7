// Applies the declarative files: function files whose text changed, or whose functions and triggers
// differ in the database, and grants.sql. Each is idempotent, so no numbered script has to repeat
// it.
//
// To PostgreSQL, a function with other arguments or another result is a different function: a
// numbered script drops the old one first. docs/decisions/017 explains why, and how two releases
// coexist.
import type pg from 'pg';
import { MigrationError, scriptFailed } from './migration-error.ts';
import type { DeclaredFile, MigrationFiles } from './migration-files.ts';
import { isCancelled, isDeadlock, isLockNotAvailable } from './sqlstate.ts';

export interface DeclaredResult {
  /** Files that were applied because their text is new. */
  changed: string[];
  /** What had been changed since the last run and was repaired, one sentence each. */
  repaired: string[];
}

const TABLE = `
  CREATE TABLE schema_file (
    name text COLLATE "C" CONSTRAINT schema_file_pk PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz(3) NOT NULL DEFAULT clock_timestamp()
  );
  COMMENT ON TABLE schema_file IS 'The files of migrations/ that are applied again whenever their text changes.'`;

const SAVE = `
  INSERT INTO schema_file (name, sha256) SELECT * FROM unnest($1::text[], $2::text[])
  ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, applied_at = clock_timestamp()`;

/** Texts that were applied last, by file. Creates their table if it is missing. */
export async function readApplied(client: pg.Client): Promise<Map<string, string>> {
  const { rows: tables } = await client.query(`SELECT to_regclass('schema_file') IS NOT NULL AS "isThere"`);
  if (!tables[0].isThere) await client.query(TABLE);
  const { rows } = await client.query<{ name: string; sha256: string }>('SELECT name, sha256 FROM schema_file');
  return new Map(rows.map(({ name, sha256 }) => [name, sha256]));
}

/** @param catalog as it is now. @throws MigrationError that names the file. */
export async function applyFunctions(
  client: pg.Client,
  files: MigrationFiles,
  applied: ReadonlyMap<string, string>,
  catalog: Catalog,
  log: (line: string) => void,
): Promise<DeclaredResult> {
  const result: DeclaredResult = { changed: [], repaired: [] };
  const due: DeclaredFile[] = [];
  for (const file of files.functions) {
    const isNew = applied.get(file.name) !== file.sha256;
    const differences = differencesOf(file, catalog);
    if (!isNew && differences.length === 0) continue;
    if (isNew) result.changed.push(file.name);
    else result.repaired.push(...differences.map((difference) => `${difference}: applied ${file.name} again`));
    log(file.name);
    due.push(file);
  }
  await applyFiles(client, due);
  await refuseLeftovers(client, files);
  await noteVanished(client, files, applied, catalog, log);
  return result;
}

/** No file is to blame. */
const isPassing = (error: unknown) => [isLockNotAvailable, isDeadlock, isCancelled].some((is) => is(error));

/**
 * In one message, since updates wait meanwhile for what the numbered scripts have locked; if one of
 * them fails, one by one, to find which. The savepoint is a message of its own: PostgreSQL parses a
 * message as a whole before it runs any of it.
 */
async function applyFiles(client: pg.Client, files: readonly DeclaredFile[]): Promise<void> {
  if (files.length === 0) return;
  await client.query('SAVEPOINT files');
  try {
    await client.query(files.map(({ sql }) => sql).join('\n'));
  } catch (error) {
    if (isPassing(error)) throw error;
    await client.query('ROLLBACK TO SAVEPOINT files');
    for (const file of files) await runFile(client, file);
  }
  await noteApplied(client, files);
}

/** @throws MigrationError that names it. */
export async function runFile(client: pg.Client, { name, sql }: DeclaredFile): Promise<void> {
  try {
    await client.query(sql);
  } catch (error) {
    throw scriptFailed(name, sql, error);
  }
}

export async function noteApplied(client: pg.Client, files: readonly DeclaredFile[]): Promise<void> {
  await client.query(SAVE, [files.map(({ name }) => name), files.map(({ sha256 }) => sha256)]);
}

/** Functions and triggers of the schema. */
export interface Catalog {
  functions: {
    name: string;
    arguments: string;
    body: string;
    isDefiner: boolean;
    isPathKept: boolean;
    isStrict: boolean;
    volatility: string;
    /** Besides search_path, such as `jit=off`. */
    settings: string[];
  }[];
  triggers: { name: string; table: string; statement: string; enabled: string }[];
}

const FUNCTIONS = `
  SELECT proname AS name, pg_get_function_identity_arguments(function.oid) AS arguments, prosrc AS body,
         prosecdef AS "isDefiner",
         coalesce('search_path=' || current_setting('search_path') = ANY (proconfig), false) AS "isPathKept",
         proisstrict AS "isStrict", CASE provolatile WHEN 'i' THEN 'IMMUTABLE' WHEN 's' THEN 'STABLE' ELSE 'VOLATILE' END AS volatility,
         ARRAY(SELECT setting FROM unnest(proconfig) AS setting WHERE setting NOT LIKE 'search_path=%') AS settings
  FROM pg_proc function JOIN pg_namespace namespace ON namespace.oid = pronamespace AND nspname = current_schema
  ORDER BY 1, 2`;
const TRIGGERS = `
  SELECT tgname AS name, relname AS table, pg_get_triggerdef(trigger.oid, true) AS statement, tgenabled AS enabled
  FROM pg_trigger trigger
  JOIN pg_class class ON class.oid = tgrelid
  JOIN pg_namespace namespace ON namespace.oid = relnamespace AND nspname = current_schema
  WHERE NOT tgisinternal`;

export async function readCatalog(client: pg.Client): Promise<Catalog> {
  const { rows: functions } = await client.query<Catalog['functions'][number]>(FUNCTIONS);
  const { rows: triggers } = await client.query<Catalog['triggers'][number]>(TRIGGERS);
  return { functions, triggers };
}

const FUNCTION_NAME = /^CREATE OR REPLACE FUNCTION (\w+)/gm;
const TRIGGER = /^CREATE OR REPLACE (TRIGGER (\w+)[^;]+? ON (\w+)[^;]+);/gm;

const functionsIn = ({ sql }: DeclaredFile) => [...sql.matchAll(FUNCTION_NAME)].map(([, name]) => name as string);

/** The body, which is kept as it was sent, and what it runs with. */
function isAsIn({ sql }: DeclaredFile, present: Catalog['functions'][number]): boolean {
  const volatility = /^(?!--).*LANGUAGE \w+ (IMMUTABLE|STABLE)/m.exec(sql)?.[1] ?? 'VOLATILE';
  const settings = [...sql.matchAll(/^SET (\w+) = '?([^'\s]+)/gm)].map(([, name, value]) => `${name}=${value}`);
  return (
    sql.includes(`$$${present.body}$$`) &&
    present.isDefiner === /^SECURITY DEFINER/m.test(sql) &&
    present.isPathKept === sql.includes('SET search_path FROM CURRENT') &&
    !present.isStrict && // none is
    present.volatility === volatility &&
    settings.sort().join() === present.settings.sort().join()
  );
}

/**
 * How the database differs from the file: a function or trigger that is missing, changed or
 * disabled; one sentence each.
 */
function differencesOf(file: DeclaredFile, { functions, triggers }: Catalog): string[] {
  const differences: string[] = [];
  for (const name of functionsIn(file)) {
    const present = functions.filter((one) => one.name === name);
    if (present.length === 0) differences.push(`the function ${name} was missing`);
    else if (!present.some((one) => isAsIn(file, one))) differences.push(`the function ${name} was changed by hand`);
  }
  for (const [, statement = '', name, table] of file.sql.matchAll(TRIGGER)) {
    const present = triggers.find((one) => one.name === name && one.table === table);
    const enabled = file.sql.includes(`ENABLE ALWAYS TRIGGER ${name}`) ? 'A' : 'O';
    if (!present) differences.push(`the trigger ${name} of ${table} was missing`);
    else if (present.enabled === 'D') differences.push(`the trigger ${name} of ${table} was disabled`);
    else if (present.enabled !== enabled) differences.push(`the trigger ${name} of ${table} was not always enabled`);
    else if (present.statement !== `CREATE ${statement.replace(/\s+/g, ' ')}`) {
      differences.push(`the trigger ${name} of ${table} was changed by hand`);
    }
  }
  return differences;
}

const OVERLOADED = `
  SELECT proname AS name, string_agg(format('%s(%s)', proname, pg_get_function_identity_arguments(function.oid)), ', ') AS signatures
  FROM pg_proc function JOIN pg_namespace namespace ON namespace.oid = pronamespace AND nspname = current_schema
  GROUP BY proname HAVING count(*) > 1`;

/**
 * CREATE OR REPLACE with other arguments makes a second function, and a call could reach either.
 *
 */
async function refuseLeftovers(client: pg.Client, { functions }: MigrationFiles): Promise<void> {
  const { rows } = await client.query<{ name: string; signatures: string }>(OVERLOADED);
  for (const { name, signatures } of rows) {
    const file = functions.find((one) => functionsIn(one).includes(name));
    if (!file) continue;
    throw new MigrationError(
      `migrations/${file.name} creates a second function next to an old one: ${signatures}. Nothing was changed. ` +
        'Drop the old one in a numbered script',
    );
  }
}

/**
 * A release that drops a function does it in a numbered script; a function that is still there may
 * be in use.
 */
async function noteVanished(
  client: pg.Client,
  { functions, grants }: MigrationFiles,
  applied: ReadonlyMap<string, string>,
  catalog: Catalog,
  log: (line: string) => void,
): Promise<void> {
  const names = new Set([...functions, grants].map(({ name }) => name));
  for (const name of applied.keys()) {
    if (names.has(name)) continue;
    const function_ = /([^/]+)\.sql$/.exec(name)?.[1];
    if (catalog.functions.some((one) => one.name === function_)) {
      log(`${name} is not part of this release: the function ${function_} was left in the database`);
    } else {
      await client.query('DELETE FROM schema_file WHERE name = $1', [name]);
    }
  }
}
