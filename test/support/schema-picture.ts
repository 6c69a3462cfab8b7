// The schema of a database as SQL that a person reads, from the catalogs: the same for every name
// of the schema, every owner and every supported version of PostgreSQL. What it has no form for is
// an error, so nothing is left out silently.
import type { ClientBase } from 'pg';

const HEADING = `-- The schema as PostgreSQL has it after migrate: a picture to read and to compare, not a script. \`npm run schema\` writes it from
-- a database that was just migrated, and test/integration/schema.test.ts compares it with the real one. Tables come in the
-- order in which they are made; a comment beside a column is its COMMENT. Owners and the name of the schema are left out.
`;

/** Of migrate itself; not what a reader looks for. */
const BOOKKEEPING = ['schemaversion', 'schema_file'];
const INDENT = '  ';
const COMMENT_WIDTH = 128;

interface Column {
  name: string;
  text: string;
  comment: string | null;
}

interface Table {
  oid: number;
  name: string;
  /** What follows CREATE TABLE's list: storage options, partitioning, partition bound. */
  bound: string | null;
  partitionKey: string | null;
  parent: string | null;
  options: string | null;
  persistence: string;
  /** Statements for what is not the default. */
  extra: string[];
  comment: string | null;
  columns: Column[];
  constraints: string[];
  indexes: string[];
  triggers: { name: string; statement: string; enabled: string }[];
}

/** @param schema the first of the search path, unless given. */
export async function pictureOfSchema(client: ClientBase, schema?: string): Promise<string> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    const name: string = schema ?? (await client.query('SELECT current_schema AS name')).rows[0].name;
    await client.query(
      `SELECT set_config('search_path', quote_ident($1), true), set_config('quote_all_identifiers', 'off', true)`,
      [name],
    );
    await refuseUnknown(client);
    const grants = await readGrants(client);
    const domains = await readDomains(client);
    const sequences = await readSequences(client);
    const tables = await readTables(client);
    const made = [
      ...sequences.map(({ oid, name, text }) => ({ oid, name, text: [text, ...(grants.get(name) ?? [])].join('\n') })),
      ...tables.map((table) => ({ oid: table.oid, name: table.name, text: textOf(table, tables, grants) })),
    ].sort((a, b) => a.oid - b.oid);
    const isOurs = (name: string) => !BOOKKEEPING.includes(name);
    const sections: [string, string[]][] = [
      ['The schema', [(grants.get('') ?? []).join('\n')]],
      ['Domains', domains],
      ['Tables', made.filter((one) => isOurs(one.name)).map(({ text }) => text)],
      ['Of migrate', made.filter((one) => !isOurs(one.name)).map(({ text }) => text)],
      ['Functions', await readFunctions(client, name, grants)],
    ];
    return [
      HEADING,
      ...sections.flatMap(([title, texts]) => [
        `-- ${title} ${'-'.repeat(100 - title.length)}\n`,
        ...texts.map((text) => `${text}\n`),
      ]),
    ].join('\n');
  } finally {
    await client.query('ROLLBACK');
  }
}

/** Rows of a query whose catalog tables are limited to the schema by `namespace`. */
async function read<Row extends object>(client: ClientBase, text: string): Promise<Row[]> {
  return (await client.query<Row>(text)).rows;
}

const OURS = `(SELECT oid FROM pg_namespace WHERE nspname = current_schema)`;

const UNKNOWN = `
  SELECT format('relation %s of kind %s', relname, relkind) AS what FROM pg_class
  WHERE relnamespace = ${OURS} AND relkind NOT IN ('r', 'p', 'S', 'i')
  UNION ALL
  SELECT format('type %s', typname) FROM pg_type LEFT JOIN pg_class ON pg_class.oid = typrelid
  WHERE typnamespace = ${OURS} AND typtype <> 'd' AND typelem = 0 AND (relkind IS NULL OR relkind NOT IN ('r', 'p', 'S'))
  UNION ALL SELECT format('function %s of kind %s', proname, prokind) FROM pg_proc WHERE pronamespace = ${OURS} AND prokind <> 'f'
  UNION ALL SELECT format('rule %s', rulename) FROM pg_rewrite JOIN pg_class ON pg_class.oid = ev_class WHERE relnamespace = ${OURS}
  UNION ALL SELECT format('policy %s', polname) FROM pg_policy JOIN pg_class ON pg_class.oid = polrelid WHERE relnamespace = ${OURS}
  UNION ALL SELECT format('statistics %s', stxname) FROM pg_statistic_ext WHERE stxnamespace = ${OURS}
  UNION ALL SELECT format('operator %s', oprname) FROM pg_operator WHERE oprnamespace = ${OURS}`;

async function refuseUnknown(client: ClientBase): Promise<void> {
  const unknown = await read<{ what: string }>(client, UNKNOWN);
  if (unknown.length > 0) {
    throw new Error(`test/schema-picture.ts has no form for: ${unknown.map(({ what }) => what).join(', ')}`);
  }
}

const DOMAINS = `
  SELECT concat('CREATE DOMAIN ', typname, ' AS ', format_type(typbasetype, typtypmod),
    CASE WHEN collname IS NOT NULL THEN format(' COLLATE %I', collname) END,
    CASE WHEN typdefault IS NOT NULL THEN ' DEFAULT ' || typdefault END,
    CASE WHEN typnotnull THEN ' NOT NULL' END,
    (SELECT string_agg(format(E'\\n  CONSTRAINT %s %s', conname, pg_get_constraintdef(oid, true)), '' ORDER BY conname)
     FROM pg_constraint WHERE contypid = pg_type.oid AND contype = 'c'),
    ';') AS text
  FROM pg_type LEFT JOIN pg_collation ON pg_collation.oid = typcollation AND collname <> 'default'
  WHERE typnamespace = ${OURS} AND typtype = 'd'
  ORDER BY pg_type.oid`;

async function readDomains(client: ClientBase): Promise<string[]> {
  return (await read<{ text: string }>(client, DOMAINS)).map(({ text }) => text);
}

// The sequence of an identity column is made with the column.
const SEQUENCES = `
  SELECT class.oid::int8 AS oid, relname AS name,
    concat('CREATE ', CASE relpersistence WHEN 'u' THEN 'UNLOGGED ' END, 'SEQUENCE ', relname, ' AS ', format_type(seqtypid, NULL),
      ' START ', seqstart, ' INCREMENT ', seqincrement, ' MINVALUE ', seqmin, ' MAXVALUE ', seqmax, ' CACHE ', seqcache,
      CASE WHEN seqcycle THEN ' CYCLE' END,
      ' OWNED BY ' || (
        SELECT concat(refobjid::regclass, '.', attname) FROM pg_depend
        JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
        WHERE classid = 'pg_class'::regclass AND objid = class.oid AND deptype = 'a'
      ), ';') AS text
  FROM pg_class class JOIN pg_sequence ON seqrelid = class.oid
  WHERE relnamespace = ${OURS}
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = class.oid AND deptype = 'i')`;

async function readSequences(client: ClientBase) {
  return await read<{ oid: number; name: string; text: string }>(client, SEQUENCES).then((rows) =>
    rows.map((row) => ({ ...row, oid: Number(row.oid) })),
  );
}

const TABLES = `
  SELECT class.oid::int8 AS oid, relname AS name, relpersistence AS persistence, array_to_string(reloptions, ', ') AS options,
    pg_get_expr(relpartbound, class.oid) AS bound, pg_get_partkeydef(class.oid) AS "partitionKey",
    (SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = class.oid) AS parent,
    array_remove(ARRAY[
      CASE WHEN relrowsecurity THEN format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY;', relname) END,
      CASE WHEN relforcerowsecurity THEN format('ALTER TABLE %I FORCE ROW LEVEL SECURITY;', relname) END,
      CASE relreplident WHEN 'f' THEN format('ALTER TABLE %I REPLICA IDENTITY FULL;', relname)
        WHEN 'n' THEN format('ALTER TABLE %I REPLICA IDENTITY NOTHING;', relname)
        WHEN 'i' THEN format('ALTER TABLE %I REPLICA IDENTITY USING INDEX ...;', relname) END
    ], NULL) AS extra,
    obj_description(class.oid, 'pg_class') AS comment,
    ARRAY(
      SELECT jsonb_build_object('name', attname, 'comment', col_description(class.oid, attnum), 'text', concat(
        attname, ' ', format_type(atttypid, atttypmod),
        CASE WHEN attcollation <> typcollation THEN format(' COLLATE %I', collname) END,
        CASE WHEN attnotnull THEN ' NOT NULL' END,
        CASE attidentity WHEN 'a' THEN ' GENERATED ALWAYS AS IDENTITY' WHEN 'd' THEN ' GENERATED BY DEFAULT AS IDENTITY' END,
        CASE attgenerated WHEN '' THEN ' DEFAULT ' || pg_get_expr(adbin, adrelid)
          ELSE format(' GENERATED ALWAYS AS (%s) %s', pg_get_expr(adbin, adrelid), attgenerated) END))
      FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
      LEFT JOIN pg_collation ON pg_collation.oid = attcollation
      LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
      WHERE attrelid = class.oid AND attnum > 0 AND NOT attisdropped
      ORDER BY attnum
    ) AS columns,
    -- NOT NULL is a constraint from PostgreSQL 18 on, and shown with its column in every version.
    ARRAY(
      SELECT format('CONSTRAINT %s %s', conname, pg_get_constraintdef(oid, true)) FROM pg_constraint
      WHERE conrelid = class.oid AND contype NOT IN ('n', 't') AND conislocal
      ORDER BY array_position('{p,u,f,x,c}', contype::text), oid
    ) AS constraints,
    ARRAY(
      SELECT pg_get_indexdef(indexrelid, 0, true) || CASE WHEN indisvalid THEN ';' ELSE '; -- invalid' END FROM pg_index
      WHERE indrelid = class.oid AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND conrelid = class.oid)
      ORDER BY indexrelid
    ) AS indexes,
    ARRAY(
      SELECT jsonb_build_object('name', tgname, 'statement', pg_get_triggerdef(oid, true), 'enabled', tgenabled) FROM pg_trigger
      WHERE tgrelid = class.oid AND NOT tgisinternal AND tgparentid = 0
      ORDER BY tgname
    ) AS triggers
  FROM pg_class class
  WHERE relnamespace = ${OURS} AND relkind IN ('r', 'p')`;

async function readTables(client: ClientBase): Promise<Table[]> {
  return (await read<Table>(client, TABLES)).map((table) => ({ ...table, oid: Number(table.oid) }));
}

const PERSISTENCE: Record<string, string> = { p: '', u: 'UNLOGGED ', t: 'TEMPORARY ' };
const ENABLED: Record<string, string> = { A: 'ENABLE ALWAYS', R: 'ENABLE REPLICA', D: 'DISABLE' };

function textOf(table: Table, tables: Table[], grants: Map<string, string[]>): string {
  const parent = tables.find(({ name }) => name === table.parent);
  const inherited = new Set(parent?.columns.map(({ text }) => text));
  const columns = table.columns.filter(({ text }) => !inherited.has(text));
  const lines = [
    ...columns.map(({ text, comment }) => ({ text, comment })),
    ...table.constraints.map((text) => ({ text, comment: null })),
  ].map(({ text, comment }, place, all) => {
    const comma = place < all.length - 1 ? ',' : '';
    return `${INDENT}${text}${comma}${comment === null ? '' : ` -- ${comment}`}`;
  });
  const tail = [
    table.bound,
    table.partitionKey === null ? null : `PARTITION BY ${table.partitionKey}`,
    table.options === null ? null : `WITH (${table.options})`,
  ].filter((part) => part !== null);
  const triggers = table.triggers.flatMap(({ name, statement, enabled }) => [
    `${statement};`,
    ...(enabled === 'O' ? [] : [`ALTER TABLE ${table.name} ${ENABLED[enabled]} TRIGGER ${name};`]),
  ]);
  return [
    ...commentLines(table.comment),
    `CREATE ${PERSISTENCE[table.persistence]}TABLE ${table.name}${table.parent ? ` PARTITION OF ${table.parent}` : ''} (`,
    ...lines,
    `)${tail.map((part) => ` ${part}`).join('')};`,
    ...table.extra,
    ...table.indexes,
    ...triggers,
    ...(grants.get(table.name) ?? []),
  ].join('\n');
}

function commentLines(comment: string | null): string[] {
  const lines: string[] = [];
  for (const word of comment?.split(' ') ?? []) {
    const line = lines.at(-1);
    if (line === undefined || line.length + word.length >= COMMENT_WIDTH) lines.push(`-- ${word}`);
    else lines[lines.length - 1] = `${line} ${word}`;
  }
  return lines;
}

const FUNCTIONS = `
  SELECT function.oid::regprocedure::text AS signature, pg_get_functiondef(function.oid) AS text,
         obj_description(function.oid, 'pg_proc') AS comment, pronamespace::regnamespace::text AS schema
  FROM pg_proc function WHERE pronamespace = ${OURS} ORDER BY 1`;

async function readFunctions(client: ClientBase, schema: string, grants: Map<string, string[]>): Promise<string[]> {
  const rows = await read<{ signature: string; text: string; comment: string | null; schema: string }>(
    client,
    FUNCTIONS,
  );
  return rows.map(({ signature, text, comment, schema: quoted }) => {
    const start = text.indexOf('\nAS ');
    const head = text.slice(0, start).replace(`FUNCTION ${quoted}.`, 'FUNCTION ').replaceAll(`'${schema}'`, `'public'`);
    return [...commentLines(comment), `${head}${text.slice(start).trimEnd()};`, ...(grants.get(signature) ?? [])].join(
      '\n',
    );
  });
}

// PUBLIC may use types, and schema "public", by default; both are the same for every database of
// ours.
const GRANTS = `
  SELECT object.name, object.target, role, grantable, string_agg(privilege, ', ' ORDER BY privilege) AS privileges
  FROM (
    SELECT object.name, object.target, acl.is_grantable AS grantable,
      CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(acl.grantee) END AS role,
      acl.privilege_type || CASE WHEN object.columns THEN format(' (%s)', string_agg(object.attname, ', ' ORDER BY object.attnum)) ELSE '' END AS privilege
    FROM (
      SELECT relname AS name, CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE '' END || relname AS target, relowner AS owner,
        coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) AS acl,
        false AS columns, NULL::name AS attname, NULL::int2 AS attnum
      FROM pg_class WHERE relnamespace = ${OURS} AND relkind IN ('r', 'p', 'S')
      UNION ALL
      SELECT relname, relname, relowner, attacl, true, attname, attnum
      FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = ${OURS} AND relkind IN ('r', 'p') AND attnum > 0
      UNION ALL
      SELECT pg_proc.oid::regprocedure::text, 'FUNCTION ' || proname, proowner, coalesce(proacl, acldefault('f', proowner)), false, NULL, NULL
      FROM pg_proc WHERE pronamespace = ${OURS}
      UNION ALL
      SELECT typname, 'TYPE ' || typname, typowner, typacl, false, NULL, NULL
      FROM pg_type WHERE typnamespace = ${OURS} AND typtype = 'd'
      UNION ALL
      SELECT '', 'SCHEMA public', nspowner, nspacl, false, NULL, NULL FROM pg_namespace WHERE oid = ${OURS}
    ) object
    CROSS JOIN LATERAL aclexplode(object.acl) acl
    WHERE acl.grantee <> object.owner AND NOT (object.name = '' AND acl.grantee = 0 AND acl.privilege_type = 'USAGE')
    GROUP BY object.name, object.target, object.columns, acl.grantee, acl.is_grantable, acl.privilege_type
  ) object
  GROUP BY object.name, object.target, role, grantable
  ORDER BY object.name, role`;

/** By object; of the schema under the empty name. */
async function readGrants(client: ClientBase): Promise<Map<string, string[]>> {
  const rows = await read<{ name: string; target: string; role: string; grantable: boolean; privileges: string }>(
    client,
    GRANTS,
  );
  const grants = new Map<string, string[]>();
  for (const { name, target, role, grantable, privileges } of rows) {
    const statement = `GRANT ${privileges} ON ${target} TO ${role}${grantable ? ' WITH GRANT OPTION' : ''};`;
    grants.set(name, [...(grants.get(name) ?? []), statement]);
  }
  return grants;
}
