// The conditions for migrate to change anything: the schema is ours, and we own its objects.
import type pg from 'pg';
import { MigrationError, UnreleasedDatabase } from './migration-error.ts';
import type { MigrationFiles } from './migration-files.ts';

/** Scripts of the versions before the first release. */
const UNRELEASED_SCRIPTS = ['ledger-append-only', 'apply-balance-updates'];

/**
 * Checks the database and makes the rest of the transaction independent of its settings.
 * @throws MigrationError for the first condition that is not met.
 */
export async function prepareDatabase(client: pg.Client, files: MigrationFiles): Promise<void> {
  const { rows } = await client.query(TARGET);
  const schema: string | undefined = rows[0]?.schema;
  if (schema === undefined)
    throw new MigrationError('no schema of search_path exists: create one, or correct search_path');
  await client.query(SETTINGS, [schema]);
  await refuseStrangers(client, files);
  await refuseOtherHistory(client, files);
}

/** A search_path may name pg_catalog first; nobody may create anything there. */
const TARGET = `
  SELECT schema FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS path (schema, place)
  WHERE schema !~ '^pg_' ORDER BY place LIMIT 1`;

/**
 * What objects are made with; the rest is as for every connection. Functions remember search_path:
 * temporary tables last, so that none shadows a table of ours.
 */
const SETTINGS = `
  SELECT pg_catalog.set_config(name, value, true) FROM (VALUES
    ('search_path', pg_catalog.quote_ident($1) || ', pg_temp'),
    ('default_tablespace', ''),
    ('default_table_access_method', 'heap'),
    ('check_function_bodies', 'on')
  ) AS setting (name, value)`;

const OWNERS = `
  SELECT DISTINCT object.name, pg_get_userbyid(object.owner) AS owner
  FROM (
    SELECT relname AS name, relowner AS owner, relnamespace AS namespace FROM pg_class WHERE relkind IN ('r', 'p', 'S')
    UNION ALL SELECT proname, proowner, pronamespace FROM pg_proc
    UNION ALL SELECT typname, typowner, typnamespace FROM pg_type WHERE typtype = 'd'
  ) object
  JOIN pg_namespace namespace ON namespace.oid = object.namespace AND namespace.nspname = current_schema
  WHERE object.name = ANY ($1) AND NOT pg_has_role(object.owner, 'USAGE')
  ORDER BY 2, 1`;

const CREATED = /^CREATE (?:OR REPLACE )?(?:TABLE|SEQUENCE|DOMAIN|FUNCTION) (\w+)/gm;

/**
 * Only an owner may change an object and grant rights on it. PostgreSQL accepts the GRANT of
 * another role with only a warning.
 */
async function refuseStrangers(client: pg.Client, { scripts, functions }: MigrationFiles): Promise<void> {
  const ours = [...scripts, ...functions].flatMap(({ sql }) => [...sql.matchAll(CREATED)].map(([, name]) => name));
  const { rows } = await client.query(OWNERS, [['schemaversion', 'schema_file', ...ours]]);
  if (rows.length === 0) return;
  const owners = Object.entries(Object.groupBy(rows, ({ owner }) => owner as string)).map(
    ([owner, objects = []]) => `${owner} owns ${objects.map(({ name }) => name).join(', ')}`,
  );
  throw new MigrationError(
    `the role that migrates has to own every object, or be a member of its owner: ${owners.join('; ')}. Nothing was changed. ` +
      'Migrate as the owner, or have an administrator change it (ALTER ... OWNER TO)',
  );
}

async function refuseOtherHistory(client: pg.Client, { scripts }: MigrationFiles): Promise<void> {
  const { rows: tables } = await client.query(
    `SELECT to_regclass('schemaversion') IS NOT NULL AS "isThere", to_regproc('apply_balance_updates') IS NOT NULL AS "isOld"`,
  );
  const { isThere, isOld } = tables[0];
  const { rows } = isThere
    ? await client.query('SELECT version, name FROM schemaversion WHERE version > 0 ORDER BY version')
    : { rows: [] };
  if (isOld || rows.some(({ name }) => UNRELEASED_SCRIPTS.includes(name))) {
    throw new UnreleasedDatabase(
      'this database was created by an unreleased version of highload-balance and cannot be migrated. Nothing was changed. ' +
        'Use an empty database, or keep using the version that created it',
    );
  }
  for (const { version, name } of rows) {
    const script = scripts[version - 1];
    if (script === undefined) {
      throw new MigrationError(
        `the database has schema version ${rows.at(-1).version}, this release knows ${scripts.length}: use a newer release`,
      );
    }
    if (name !== script.name) {
      throw new MigrationError(
        `schemaversion was written by other scripts: ${version} is "${name}", not "${script.name}". Nothing was changed. ` +
          'Give highload-balance a schema or database of its own',
      );
    }
  }
}
