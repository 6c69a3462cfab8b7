// npm run keys, as an operator and a script use it.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { hashOf } from '../../src/shared/api-key.ts';
import { cleanUp, createDatabase, type Database, onCleanUp, until } from '../harness.ts';

const FILE = fileURLToPath(new URL('../../src/cli/keys.ts', import.meta.url));
const TOKEN = /^hlb_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}$/;

let database: Database;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(cleanUp);

function keys(args: string[], databaseUrl = database.url) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [FILE, ...args], {
    env: { PATH: process.env.PATH, DATABASE_URL: databaseUrl },
    encoding: 'utf8',
    timeout: 30_000,
  });
  return { status, stdout: stdout.trim(), stderr: stderr.trim() };
}

const stored = async (actor: string) =>
  (await database.pool.query('SELECT * FROM api_key WHERE actor = $1 ORDER BY created_at', [actor])).rows;

it('prints a new token alone on standard output, and keeps nothing of it but its hash', async () => {
  const { status, stdout, stderr } = keys(['create', 'billing', '--scopes', 'read,write']);
  expect(status).toBe(0);
  expect(stdout).toMatch(TOKEN);
  expect(stderr).toBe(`Key ${stdout.slice(4, 16)} of billing: read, write. Its token, shown this once:`);
  const [row] = await stored('billing');
  expect(row).toMatchObject({ key_id: stdout.slice(4, 16), scopes: ['read', 'write'], rate_limit: null });
  expect(row.token_sha256).toEqual(hashOf(stdout));
  expect(JSON.stringify(row)).not.toContain(stdout.slice(17));
});

it('lists keys without their tokens, revoked ones when asked', () => {
  const token = keys(['create', 'listed', '--scopes=admin', '--rate-limit', '50']).stdout;
  const id = token.slice(4, 16);
  const text = keys(['list', 'listed']).stdout;
  for (const part of [id, 'listed', 'admin', '50']) expect(text).toContain(part);
  expect(text).not.toContain(token.slice(17));
  expect(keys(['revoke', id]).stdout).toMatch(new RegExp(`^Key ${id} of listed is revoked since 20`));
  expect(keys(['list', 'listed']).stdout).toBe('no keys');
  expect(keys(['list', 'listed', '--all']).stdout).toContain(id);
});

it('speaks JSON', () => {
  const created = JSON.parse(keys(['create', 'script', '--scopes', 'write', '--rate-limit', '7', '--json']).stdout);
  expect(created).toMatchObject({ actor: 'script', scopes: ['write'], rateLimit: 7, revokedAt: null });
  expect(created.token).toMatch(TOKEN);
  const { token, ...known } = created;
  expect(JSON.parse(keys(['list', 'script', '--json']).stdout)).toEqual({ keys: [known] });
  const revoked = JSON.parse(keys(['revoke', created.id, '--json']).stdout);
  expect(revoked).toMatchObject({ id: created.id, revokedAt: expect.stringMatching(/^20/) });
  expect(JSON.parse(keys(['revoke', created.id, '--json']).stdout)).toEqual(revoked); // a repeat changes nothing
});

it('revokes by the token too, such as one that leaked', () => {
  const token = keys(['create', 'leaky', '--scopes', 'read']).stdout;
  const { status, stdout } = keys(['revoke', token]);
  expect(status).toBe(0);
  expect(stdout).toContain(token.slice(4, 16));
  expect(stdout).not.toContain(token.slice(17));
});

it('refuses a third active key of a client, and says which to revoke', async () => {
  const ids = [1, 2].map(() => keys(['create', 'rotating', '--scopes', 'read']).stdout.slice(4, 16));
  const { status, stdout, stderr } = keys(['create', 'rotating', '--scopes', 'read']);
  expect(status).toBe(1);
  expect(stdout).toBe('');
  expect(stderr).toContain(`rotating has 2 active keys, ${ids[0]} and ${ids[1]}`);
  expect(stderr).toContain(`npm run keys -- revoke ${ids[0]}`);
  expect(await stored('rotating')).toHaveLength(2);
});

it('helps', () => {
  for (const args of [['--help'], ['create', '-h']]) {
    const { status, stdout, stderr } = keys(args, 'postgres://nowhere:1/none');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    for (const word of ['create CLIENT', 'list', 'revoke', '--scopes', '--rate-limit', '--json']) {
      expect(stdout).toContain(word);
    }
  }
});

it.each([
  [[], 'a command is missing'],
  [['make'], 'there is no command make'],
  [['create'], 'CLIENT: is missing'],
  [['create', 'a b', '--scopes', 'read'], 'CLIENT: must be 1 to 64 characters'],
  [['create', 'client'], '--scopes (read, write, admin): is missing'],
  [['create', 'client', '--scopes', 'read,all'], '--scopes (read, write, admin): Invalid option'],
  [['create', 'client', '--scopes', ''], '--scopes (read, write, admin): Invalid option'],
  [['create', 'client', '--scopes', 'read', '--rate-limit', '0'], '--rate-limit: '],
  [['create', 'client', '--scopes', 'read', '--all'], 'create does not take --all'],
  [['create', 'client', 'other', '--scopes', 'read'], 'one argument too many: other'],
  [['create', 'client', '--scope', 'read'], "Unknown option '--scope'"],
  [['revoke'], 'revoke needs a KEY_ID'],
])('calls %j a wrong use, changes nothing and exits 2', async (args, what) => {
  const { status, stdout, stderr } = keys(args);
  expect(stderr).toContain(what);
  expect(stderr).toContain('npm run keys -- create CLIENT');
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(await stored('client')).toEqual([]);
});

it('says what to do when it cannot', async () => {
  const unknown = keys(['revoke', 'nobodyhasthis']);
  expect(unknown).toMatchObject({ status: 1, stderr: expect.stringContaining('there is no key nobodyhasthis') });
  const away = keys(['list'], 'postgres://owner:hushhush@127.0.0.1:1/none');
  expect(away).toMatchObject({ status: 1, stderr: expect.stringContaining('does not answer') });
  expect(away.stderr).not.toContain('hushhush');
  const empty = await createDatabase({ migrated: false });
  expect(keys(['list'], empty.url)).toMatchObject({ status: 1, stderr: expect.stringContaining('Run migrate first') });
});

it('says so in a sentence when its connection is ended meanwhile', async () => {
  const blocker = await database.pool.connect();
  onCleanUp(async () => blocker.release(true));
  await blocker.query('BEGIN; LOCK TABLE api_key');
  const child = spawn(process.execPath, [FILE, 'list'], {
    env: { PATH: process.env.PATH, DATABASE_URL: database.url },
  });
  let said = '';
  child.stderr.on('data', (chunk) => (said += chunk));
  await until('it is waiting, and is ended', async () => {
    const { rows } = await database.pool.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND application_name LIKE '%keys%' AND wait_event_type = 'Lock'`,
    );
    return rows.length > 0;
  });
  const [code] = await once(child, 'close');
  expect({ code, said }).toEqual({
    code: 1,
    said: 'PostgreSQL: terminating connection due to administrator command\n',
  });
});
