// Migrations: all or nothing, one runner at a time, and never a silent skip.
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { expectedSchemaVersion, migrate } from '../../src/shared/migrations.ts';
import { cleanUp, createDatabase, type Database, onCleanUp, verified } from '../harness.ts';

const SCRIPTS = fileURLToPath(new URL('../../migrations/', import.meta.url));
let newest: number;

beforeAll(async () => {
  newest = await expectedSchemaVersion();
});
afterAll(cleanUp);

/** The project's scripts and further ones, in a folder with a name that a glob would take for a pattern. */
async function scripts(extra: Record<string, string>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'migrations [x] {y} '));
  onCleanUp(() => rm(folder, { recursive: true }));
  await cp(SCRIPTS, folder, { recursive: true });
  for (const [name, sql] of Object.entries(extra)) await writeFile(join(folder, name), sql);
  return folder;
}

async function versionOf({ pool }: Database): Promise<number> {
  return (await pool.query('SELECT max(version) AS version FROM schemaversion')).rows[0].version;
}

it('brings an empty database to the newest version, and then finds nothing to do', async () => {
  const database = await createDatabase({ migrated: false });
  const first = await migrate(database.url);
  expect(first.version).toBe(newest);
  expect(first.applied).toHaveLength(newest);
  expect(await migrate(database.url)).toEqual({ version: newest, applied: [] });
  expect(await verified(database)).toMatchObject({ accounts: 0, offendingAccounts: 0 });
});

it('runs each script once when many runners start together', async () => {
  const database = await createDatabase({ migrated: false });
  const results = await Promise.all(Array.from({ length: 6 }, () => migrate(database.url)));
  expect(results.filter((result) => result.applied.length > 0)).toHaveLength(1);
  expect(await versionOf(database)).toBe(newest);
});

it('leaves nothing of a run in which a later script fails', async () => {
  const database = await createDatabase();
  const folder = await scripts({
    [`00${newest + 1}.do.fine.sql`]: 'CREATE TABLE fine (); INSERT INTO fine DEFAULT VALUES;',
    [`00${newest + 2}.do.broken.sql`]: 'CREATE TABLE half (); SELECT 1 / 0;',
  });
  await expect(migrate(database.url, () => {}, folder)).rejects.toThrow(
    /broken failed, nothing was changed: division by zero/,
  );
  expect(await versionOf(database)).toBe(newest);
  const { rows } = await database.pool.query(`SELECT to_regclass('fine') AS fine, to_regclass('half') AS half`);
  expect(rows).toEqual([{ fine: null, half: null }]);
  await rm(join(folder, `00${newest + 2}.do.broken.sql`));
  expect((await migrate(database.url, () => {}, folder)).applied).toEqual(['fine']);
});

it('refuses a script that was changed after it ran', async () => {
  const database = await createDatabase();
  const folder = await scripts({ '001.do.tables.sql': 'CREATE TABLE account (balance float);' });
  await expect(migrate(database.url, () => {}, folder)).rejects.toThrow(/MD5/);
});

it('refuses a hole in the numbers instead of passing over it', async () => {
  const database = await createDatabase();
  const folder = await scripts({ [`00${newest + 2}.do.later.sql`]: 'SELECT 1;' });
  await expect(migrate(database.url, () => {}, folder)).rejects.toThrow(`migration script ${newest + 1} is missing`);
});

it('refuses a database that is newer than the scripts', async () => {
  const database = await createDatabase();
  await database.pool.query(`INSERT INTO schemaversion (version, name) VALUES (${newest + 1}, 'from the future')`);
  await expect(migrate(database.url)).rejects.toThrow(/use a newer release/);
});
