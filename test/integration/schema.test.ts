// migrations/schema.sql is the picture of the schema that migrate makes, and shows every change of
// it.
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { migrate } from '../../src/shared/migrations.ts';
import { cleanUp, createDatabase, type Database } from '../support/harness.ts';
import { pictureOfSchema } from '../support/schema-picture.ts';

const FILE = fileURLToPath(new URL('../../migrations/schema.sql', import.meta.url));

afterAll(cleanUp);

async function pictureOf({ pool }: Database, schema?: string): Promise<string> {
  const client = await pool.connect();
  try {
    return await pictureOfSchema(client, schema);
  } finally {
    client.release();
  }
}

/** Lines that only one of the two has, or has more often. */
function differences(before: string, after: string): string[] {
  const balance = new Map<string, number>();
  for (const line of before.split('\n')) balance.set(line, (balance.get(line) ?? 0) - 1);
  for (const line of after.split('\n')) balance.set(line, (balance.get(line) ?? 0) + 1);
  return [...balance].filter(([, count]) => count !== 0).map(([line]) => line);
}

it('shows the schema that migrate makes', async () => {
  const picture = await pictureOf(await createDatabase());
  expect(picture, 'migrations/schema.sql is not what migrate makes. "npm run schema" writes it').toBe(
    await readFile(FILE, 'utf8'),
  );
});

it('shows the same for any name and any owner of the schema', async () => {
  const database = await createDatabase({ migrated: false });
  await database.pool.query('CREATE SCHEMA "an odd ""name"".x"');
  const url = new URL(database.url);
  url.searchParams.set('options', '-c search_path="an\\ odd\\ ""name"".x"');
  await migrate(url.href.replaceAll('+', '%20'));
  expect(await pictureOf(database, 'an odd "name".x')).toBe(await readFile(FILE, 'utf8'));
});

it.each([
  ['a column', 'ALTER TABLE account ADD COLUMN note text', 'note text'],
  ['a default', 'ALTER TABLE account ALTER COLUMN held SET DEFAULT 1', 'held bigint NOT NULL DEFAULT 1'],
  ['a default of a partition', 'ALTER TABLE outbox_odd ALTER COLUMN held SET DEFAULT 1', 'DEFAULT 1'],
  ['a constraint', 'ALTER TABLE hold DROP CONSTRAINT hold_amount_in_range', 'hold_amount_in_range'],
  ['a storage option', 'ALTER TABLE account RESET (fillfactor)', ');'],
  ['an index', 'DROP INDEX hold_active', 'INDEX hold_active'],
  ['the state of a trigger', 'ALTER TABLE ledger DISABLE TRIGGER ledger_rows_are_final', 'DISABLE TRIGGER'],
  ['a grant', 'REVOKE SELECT ON epoch FROM balance_worker', 'GRANT SELECT ON epoch TO balance_worker'],
  ['a grant of a column', 'GRANT UPDATE (asset) ON account TO balance_api', 'UPDATE (asset, balance'],
  ['a right of PUBLIC', 'GRANT EXECUTE ON FUNCTION money_verdict TO PUBLIC', 'money_verdict TO PUBLIC'],
  ['a setting of a function', 'ALTER FUNCTION expire_due_holds RESET jit', 'SET jit'],
  ['SECURITY DEFINER', 'ALTER FUNCTION current_epoch SECURITY INVOKER', 'SECURITY DEFINER'],
  ['a comment', `COMMENT ON COLUMN account.held IS 'other'`, '-- other'],
])('shows a change of %s', async (_, statement, shown) => {
  const database = await createDatabase();
  const before = await pictureOf(database);
  await database.pool.query(statement);
  const changed = differences(before, await pictureOf(database));
  expect(changed.join('\n')).toContain(shown);
  expect(changed.length).toBeLessThanOrEqual(4);
});

it('refuses what it has no form for, instead of leaving it out', async () => {
  const database = await createDatabase();
  await database.pool.query('CREATE VIEW rich AS SELECT * FROM account');
  await expect(pictureOf(database)).rejects.toThrow('no form for: relation rich of kind v');
});
