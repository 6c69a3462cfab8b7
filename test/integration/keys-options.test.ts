// npm run keys: --accounts and --expires, and how a key shows what it is bound to, when it ends and
// when it was used.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cleanUp, createDatabase, type Database, INHERITED } from '../support/harness.ts';

const FILE = fileURLToPath(new URL('../../src/cli/keys.ts', import.meta.url));
const HOUR_MS = 3_600_000;

let database: Database;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(cleanUp);

function keys(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [FILE, ...args], {
    env: { ...INHERITED, DATABASE_URL: database.url },
    encoding: 'utf8',
    timeout: 100_000,
  });
  return { status, stdout: stdout.trim(), stderr: stderr.trim() };
}
const json = (...args: string[]) => JSON.parse(keys(...args, '--json').stdout);
const create = (...args: string[]) => keys('create', ...args, '--scopes', 'read');
/** Of keys that are made and ended again: a client has two at most. */
const made = (name: string, ...args: string[]) => json('create', name, '--scopes', 'read', ...args);

it('binds a key to a prefix of account ids, and says so', () => {
  const { status, stdout, stderr } = create('game-one', '--accounts', 'game1:');
  expect(status).toBe(0);
  expect(stderr).toBe(
    `Key ${stdout.slice(4, 16)} of game-one: read, for accounts that begin with game1:. Its token, shown only once:`,
  );
  expect(json('list', 'game-one').keys).toMatchObject([{ accountPrefix: 'game1:', expiresAt: null, lastUsedAt: null }]);
  const text = keys('list', 'game-one').stdout;
  for (const part of ['accounts', 'game1:*', 'expires', 'last used']) expect(text).toContain(part);
  create('everyone');
  expect(keys('list', 'everyone').stdout).toMatch(/ everyone +read +all /);
});

it.each(['game1', '', 'game 1:', 'jeu-é:', `${'x'.repeat(64)}:`, 'game1:*'])('refuses the prefix %j', (prefix) => {
  const { status, stderr, stdout } = create('wrong-prefix', '--accounts', prefix);
  expect(stderr).toContain(
    '--accounts: must be 1 to 64 characters of A-Z a-z 0-9 . _ : -, the last of them one of . _ : -',
  );
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
});

it('ends a key after a while, at a date or at a time', () => {
  const untilMs = (key: { createdAt: string; expiresAt: string }) =>
    Date.parse(key.expiresAt) - Date.parse(key.createdAt);
  for (const [when, hours] of [
    ['30m', 0.5],
    ['12h', 12],
    ['90d', 90 * 24],
    ['4w', 28 * 24],
  ] as const) {
    const key = made(`for-${when}`, '--expires', when);
    expect(Math.abs(untilMs(key) - hours * HOUR_MS), when).toBeLessThan(1000);
  }
  const nextYear = new Date().getUTCFullYear() + 1;
  const at = (when: string) => made(`at-${when}`.replaceAll(/[^0-9a-z-]/gi, '.'), '--expires', when).expiresAt;
  expect(at(`${nextYear}-06-30`)).toBe(`${nextYear}-06-30T00:00:00.000Z`);
  expect(at(`${nextYear}-06-30T12:00:00Z`)).toBe(`${nextYear}-06-30T12:00:00.000Z`);
  expect(at(`${nextYear}-06-30T12:00:00.5+02:00`)).toBe(`${nextYear}-06-30T10:00:00.500Z`);
  const { stderr } = create('told', '--expires', `${nextYear}-01-01`, '--accounts', 'a.');
  expect(stderr).toContain(`: read, for accounts that begin with a., until ${nextYear}-01-01T00:00:00.000Z. Its token`);
});

it.each(['soon', '90', '0d', '1.5h', '9y', '2027-02-30', '30.06.2027', '2027-06-30 12:00', ''])(
  'refuses the expiry %j, and says what one looks like',
  (when) => {
    const { status, stderr } = create('wrong-expiry', '--expires', when);
    expect(status).toBe(2);
    expect(stderr).toContain('--expires: must be a date (2027-06-30, ');
    expect(stderr).toContain('90d');
  },
);

it('refuses an expiry that has passed, and one that is too far away to be meant', async () => {
  const past = create('past', '--expires', '2020-01-01');
  expect(past).toMatchObject({ status: 1, stdout: '' });
  expect(past.stderr).toMatch(/^--expires 2020-01-01T00:00:00.000Z: it is already 20.*Z\. Give a later time\.$/);
  for (const when of ['9999d', '9999999w', '2999-01-01']) {
    expect(create('far', '--expires', when)).toMatchObject({
      ...{ status: 1, stdout: '' },
      stderr: expect.stringContaining('give a time within ten years'),
    });
  }
  const { rows } = await database.pool.query(`SELECT FROM api_key WHERE actor IN ('past', 'far')`);
  expect(rows).toEqual([]);
});

it('lists expired keys with --all alone, when each ended and when it was used last', async () => {
  const key = made('ended', '--expires', '1h');
  await database.pool.query(
    `UPDATE api_key SET expires_at = '2026-11-23T10:00:00Z', last_used_at = '2026-11-23T09:59:00Z' WHERE key_id = $1`,
    [key.id],
  );
  expect(keys('list', 'ended').stdout).toBe('no keys');
  const text = keys('list', 'ended', '--all').stdout;
  for (const part of ['2026-11-23T10:00:00.000Z', '2026-11-23T09:59:00.000Z']) expect(text).toContain(part);
  expect(json('list', 'ended', '--all').keys).toMatchObject([
    { id: key.id, expiresAt: '2026-11-23T10:00:00.000Z', lastUsedAt: '2026-11-23T09:59:00.000Z', revokedAt: null },
  ]);
});

it('takes neither option where they mean nothing, and helps with both', () => {
  expect(keys('list', '--accounts', 'a:').stderr).toContain('list does not take --accounts');
  expect(keys('revoke', 'x', '--expires', '1d').stderr).toContain('revoke does not take --expires');
  const { stdout } = keys('--help');
  for (const part of ['--accounts', '--expires', 'game1:', '90d']) expect(stdout).toContain(part);
});
