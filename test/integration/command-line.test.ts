// highload-balance COMMAND: says what there is, and ends as the command ends.
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startScript } from '../support/commands.ts';
import { cleanUp, createDatabase, createFolder, type Database, insertAccounts } from '../support/harness.ts';

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
});
afterAll(cleanUp);

const runWith = (settings: Record<string, string>, ...args: string[]) =>
  startScript('cli/highload-balance.mjs', args, settings).whenEnded;
const run = (...args: string[]) => runWith({ DATABASE_URL: database.url }, ...args);

it('names every command, and its version', async () => {
  const { code, out } = await run('--help');
  expect(code).toBe(0);
  const operators = [
    'migrate',
    'verify',
    'heads',
    'logins',
    'keys',
    'dead-letters',
    'restored',
    'compare',
    'replay',
    'subscribers',
  ];
  const names = ['start', 'api', 'worker', ...operators];
  for (const name of names) expect(out).toMatch(new RegExp(`^  ${name} +\\w`, 'm'));
  expect(await run('-h')).toMatchObject({ code: 0, out });
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  for (const option of ['--version', '-v']) expect(await run(option)).toMatchObject({ code: 0, out: `${version}\n` });
  for (const name of names) {
    const { code, out: usage } = await run(name, '-h');
    expect({ code, usage }).toEqual({ code: 0, usage: expect.stringMatching(`^usage: highload-balance ${name}\\b`) });
  }
});

it.each([
  [[], 'COMMAND'],
  [['pay'], 'There is no command pay'],
  [['api', '--port', '1'], 'remove --port 1'],
  [['verify', '--fast'], '--fast'],
  [['migrate', 'now'], "'now'"],
  [['start', '--yes'], '--yes is only for --reset'],
  [['subscribers', 'resume'], 'specify the queue'],
])('says what is wrong with %j, with exit code 2', async (args, what) => {
  const { code, err } = await run(...args);
  expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining(what) });
});

it('runs a command with its arguments, and ends with its exit code', async () => {
  await insertAccounts(database, 'alice');
  expect(await run('verify')).toMatchObject({ code: 0, out: expect.stringContaining('verified') });
  expect((await run('keys', '--help')).out).toContain('create');
  const file = path.join(await createFolder(), 'url');
  await writeFile(file, `${database.url}\n`);
  const { out: byFile } = await runWith({ DATABASE_URL_FILE: file }, 'verify');
  expect(byFile).toContain('verified');
  await database.pool.query(`UPDATE account SET version = 7`);
  const { code, out } = await run('verify');
  expect(code).toBe(1);
  expect(out).toContain('alice: the account is at version 7, but its last entry at 0');
});
