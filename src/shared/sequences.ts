// Logical replication copies tables and no sequences, and a partial restore can lose them too: the
// next number would then be one that its table has, and its insert would fail.
import type pg from 'pg';

/** Of the outbox: above everything that the relay has noted, too. */
const RAISE_POSITION = 'SELECT raise_outbox_position() AS position';

/** Columns that are numbered by a sequence of their own. */
const IDENTITIES = `
  SELECT quote_ident(sequence.relname) AS sequence, quote_ident(class.relname) AS table, quote_ident(attname) AS column
  FROM pg_depend
  JOIN pg_class sequence ON sequence.oid = objid AND sequence.relkind = 'S'
  JOIN pg_class class ON class.oid = refobjid
  JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
  JOIN pg_namespace namespace ON namespace.oid = sequence.relnamespace AND namespace.nspname = current_schema
  WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype = 'i'
  ORDER BY 1`;

/** Only ever moves them forward. @returns a sentence for each that was too low. */
export async function raiseSequences(client: pg.Client): Promise<string[]> {
  const [{ position }] = (await client.query(RAISE_POSITION)).rows;
  const repaired = position === null ? [] : [`outbox_position would have repeated positions: set to ${position}`];
  for (const { sequence, table, column } of (await client.query(IDENTITIES)).rows) {
    const { rows } = await client.query(
      `SELECT setval($1::regclass, newest.id) AS id FROM (SELECT max(${column}) AS id FROM ${table}) newest, ${sequence} present
       WHERE newest.id >= present.last_value + present.is_called::integer`,
      [sequence],
    );
    for (const { id } of rows) repaired.push(`${sequence} would have repeated numbers of ${table}: set to ${id}`);
  }
  return repaired;
}
