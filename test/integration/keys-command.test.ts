// npm run keys, as an operator and a script use it.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { hashOf } from '../../src/shared/api-key.ts';
import { runCommand } from '../support/commands.ts';
import { cleanUp, createDatabase, type Database, onCleanUp, until } from '../support/harness.ts';

const TOKEN = /^hlb_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}$/;

let database: Database;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(cleanUp);

async function keys(args: readonly string[], databaseUrl = database.url) {
  const { code, out, err } = await runCommand(['keys', ...args], { DATABASE_URL: databaseUrl });
  return { code, out: out.trim(), err: err.trim() };
}

const stored = async (actor: string) =>
  (await database.pool.query('SELECT * FROM api_key WHERE actor = $1 ORDER BY created_at', [actor])).rows;

it('prints a new token alone on standard output, and keeps nothing of it but its hash', async () => {
  const { code, out, err } = await keys(['create', 'billing', '--scopes', 'read,write']);
  expect(code).toBe(0);
  expect(out).toMatch(TOKEN);
  expect(err).toBe(`Key ${out.slice(4, 16)} of billing: read, write. Its token, shown only once:`);
  const [row] = await stored('billing');
  expect(row).toMatchObject({ key_id: out.slice(4, 16), scopes: ['read', 'write'], rate_limit: null });
  expect(row.token_sha256).toEqual(hashOf(out));
  expect(JSON.stringify(row)).not.toContain(out.slice(17));
});

it('lists keys without their tokens, revoked ones when asked', async () => {
  const token = (await keys(['create', 'listed', '--scopes=admin', '--rate-limit', '50'])).out;
  const id = token.slice(4, 16);
  const text = (await keys(['list', 'listed'])).out;
  for (const part of [id, 'listed', 'admin', '50']) expect(text).toContain(part);
  expect(text).not.toContain(token.slice(17));
  expect((await keys(['revoke', id])).out).toMatch(new RegExp(`^Key ${id} of listed was revoked at 20`));
  expect((await keys(['list', 'listed'])).out).toBe('no keys');
  expect((await keys(['list', 'listed', '--all'])).out).toContain(id);
});

it('speaks JSON', async () => {
  const created = JSON.parse(
    (await keys(['create', 'script', '--scopes', 'write', '--rate-limit', '7', '--json'])).out,
  );
  expect(created).toMatchObject({ actor: 'script', scopes: ['write'], rateLimit: 7, revokedAt: null });
  expect(created.token).toMatch(TOKEN);
  const { token, ...known } = created;
  expect(JSON.parse((await keys(['list', 'script', '--json'])).out)).toEqual({ keys: [known] });
  const revoked = JSON.parse((await keys(['revoke', created.id, '--json'])).out);
  expect(revoked).toMatchObject({ id: created.id, revokedAt: expect.stringMatching(/^20/) });
  expect(JSON.parse((await keys(['revoke', created.id, '--json'])).out)).toEqual(revoked); // a second time changes nothing
});

it('revokes by the token too, such as one that leaked', async () => {
  const token = (await keys(['create', 'leaky', '--scopes', 'read'])).out;
  const { code, out } = await keys(['revoke', token]);
  expect(code).toBe(0);
  expect(out).toContain(token.slice(4, 16));
  expect(out).not.toContain(token.slice(17));
});

it('refuses a third active key of a client, and says which to revoke', async () => {
  const create = () => keys(['create', 'rotating', '--scopes', 'read']);
  const ids = [(await create()).out.slice(4, 16), (await create()).out.slice(4, 16)];
  const { code, out, err } = await create();
  expect(code).toBe(1);
  expect(out).toBe('');
  expect(err).toContain(`rotating has 2 active keys, ${ids[0]} and ${ids[1]}`);
  expect(err).toContain(`npm run keys -- revoke ${ids[0]}`);
  expect(await stored('rotating')).toHaveLength(2);
});

it('helps', async () => {
  for (const args of [['--help'], ['create', '-h']]) {
    const { code, out, err } = await keys(args, 'postgres://nowhere:1/none');
    expect({ code, err }).toEqual({ code: 0, err: '' });
    for (const word of ['create CLIENT', 'list', 'revoke', '--scopes', '--rate-limit', '--json']) {
      expect(out).toContain(word);
    }
  }
});

it.each([
  [[], 'a command is missing'],
  [['make'], 'there is no command make'],
  [['create'], 'CLIENT: is missing'],
  [['create', 'a b', '--scopes', 'read'], 'CLIENT: must be 1 to 64 characters'],
  [['create', 'client'], '--scopes (read, write, admin): is missing'],
  [['create', 'client', '--scopes', 'read,all'], '--scopes (read, write, admin): must be one of read, write, admin'],
  [['create', 'client', '--scopes', ''], '--scopes (read, write, admin): must be one of read, write, admin'],
  [
    ['create', 'client', '--scopes', 'read', '--rate-limit', '0'],
    '--rate-limit: must be a whole number from 1 to 1000000000',
  ],
  [['create', 'client', '--scopes', 'read', '--all'], 'create does not take --all'],
  [['create', 'client', 'other', '--scopes', 'read'], 'one argument too many: other'],
  [['create', 'client', '--scope', 'read'], "Unknown option '--scope'"],
  [['revoke'], 'revoke needs a KEY_ID'],
])('calls %j a wrong use, changes nothing and exits 2', async (args, what) => {
  const { code, out, err } = await keys(args);
  expect(err).toContain(what);
  expect(err).toContain('usage: highload-balance keys create CLIENT');
  expect({ code, out }).toEqual({ code: 2, out: '' });
  expect(await stored('client')).toEqual([]);
});

it('says what to do when it cannot', async () => {
  const unknown = await keys(['revoke', 'nobodyhasthis']);
  expect(unknown).toMatchObject({ code: 1, err: expect.stringContaining('there is no key nobodyhasthis') });
  const away = await keys(['list'], 'postgres://owner:hushhush@127.0.0.1:1/none');
  expect(away).toMatchObject({ code: 1, err: expect.stringContaining('does not answer') });
  expect(away.err).not.toContain('hushhush');
  const empty = await createDatabase({ migrated: false });
  expect(await keys(['list'], empty.url)).toMatchObject({ code: 1, err: expect.stringContaining('Run migrate first') });
});

it('says so in a sentence when its connection is ended meanwhile', async () => {
  const blocker = await database.pool.connect();
  onCleanUp(async () => blocker.release(true));
  await blocker.query('BEGIN; LOCK TABLE api_key');
  const listing = keys(['list']);
  await until('it is waiting, and is ended', async () => {
    const { rows } = await database.pool.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND application_name LIKE '%keys%' AND wait_event_type = 'Lock'`,
    );
    return rows.length > 0;
  });
  expect(await listing).toEqual({
    ...{ code: 1, out: '' },
    err: 'PostgreSQL: terminating connection due to administrator command',
  });
});
