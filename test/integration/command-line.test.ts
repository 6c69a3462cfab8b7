// highload-balance COMMAND: says what there is, and ends as the command ends.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cleanUp, createDatabase, type Database, insertAccounts } from '../harness.ts';

const FILE = fileURLToPath(new URL('../../src/cli/highload-balance.mjs', import.meta.url));

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
});
afterAll(cleanUp);

function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const env = { PATH: process.env.PATH, DATABASE_URL: database.url };
  return new Promise((resolve) => {
    execFile(process.execPath, [FILE, ...args], { env, timeout: 60_000 }, (error, out, err) =>
      resolve({ code: error ? Number(error.code) : 0, out, err }),
    );
  });
}

it('names every command, and its version', async () => {
  const { code, out } = await run('--help');
  expect(code).toBe(0);
  for (const name of ['start', 'migrate', 'api', 'worker', 'verify', 'heads', 'keys', 'dead-letters', 'replay'])
    expect(out).toMatch(new RegExp(`^  ${name} +\\w`, 'm'));
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  expect(await run('--version')).toMatchObject({ code: 0, out: `${version}\n` });
});

it.each([
  [[], 'COMMAND'],
  [['pay'], 'There is no command pay'],
  [['api', '--port', '1'], 'leave --port 1 out'],
  [['verify', '--fast'], '--fast'],
])('says what is wrong with %j, with exit code 2', async (args, what) => {
  const { code, err } = await run(...args);
  expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining(what) });
});

it('runs a command with its arguments, and ends with its exit code', async () => {
  await insertAccounts(database, 'alice');
  expect(await run('verify')).toMatchObject({ code: 0, out: expect.stringContaining('verified') });
  expect((await run('keys', '--help')).out).toContain('create');
  await database.pool.query(`UPDATE account SET version = 7`);
  const { code, out } = await run('verify');
  expect(code).toBe(1);
  expect(out).toContain('alice: the account is at version 7, its last entry at 0');
});
