// How long a key counts: until its expiry, to the moment; for answers that go on as long as it can
// be checked; and when it was used.
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import express, { type Response } from 'express';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Access, createAccess } from '../../src/api/access/access.ts';
import { startKeyRing } from '../../src/api/access/key-ring.ts';
import { startLastUses } from '../../src/api/access/last-uses.ts';
import { createKey, listKeys, revokeKey, type WantedKey } from '../../src/cli/api-keys.ts';
import { createToken } from '../../src/shared/api-key.ts';
import { createLogger } from '../../src/shared/logging.ts';
import { watch } from '../support/console-watcher.ts';
import {
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  onCleanUp,
  send,
  startApiHere,
  until,
} from '../support/harness.ts';

const log = createLogger('test', 'silent');
/** No reading but those that a test asks for. */
const NO_READINGS = { readIntervalMs: 3_600_000, rereadIntervalMs: 10, trustedForMs: 3_600_000 };

let database: Database;
let broker: Broker;
beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
});
afterAll(cleanUp);

async function withClient<T>(work: (client: Parameters<typeof createKey>[0]) => Promise<T>): Promise<T> {
  const client = await database.pool.connect();
  return work(client).finally(() => client.release());
}
const create = (actor: string, wanted: Partial<WantedKey> = {}) =>
  withClient((client) => createKey(client, { actor, scopes: ['read'], ...wanted }));
const headersOf = ({ token }: { token: string }) => ({ authorization: `Bearer ${token}` });
const stored = async (actor: string) =>
  (await withClient((client) => listKeys(client, { revokedToo: true, actor })))[0] as Awaited<
    ReturnType<typeof listKeys>
  >[0];

it('refuses an expired key at its moment, without having read it again', async () => {
  const ring = startKeyRing({ databaseUrl: database.url, log }, NO_READINGS);
  onCleanUp(() => ring.stop());
  const { token, key } = await create('brief', { expiry: { afterMs: 1500 } });
  const found = await ring.find(token);
  if (typeof found !== 'object') throw new Error(`it is ${found}`);
  expect(ring.stillCounts(found)).toBe(true);
  await until('it is refused', () => ring.find(token) === 'unknown');
  const now = (await database.pool.query('SELECT clock_timestamp() AS now')).rows[0].now as Date;
  const lateMs = now.getTime() - (key.expiresAt as Date).getTime();
  expect(lateMs).toBeGreaterThan(-250); // counted from before the reading
  expect(lateMs).toBeLessThan(10_000);
  expect(ring.stillCounts(found)).toBe(false);
});

it('takes a key of which someone wrote that it never ends, and none that ended', async () => {
  const never = await create('never');
  const over = await create('over');
  await database.pool.query(`UPDATE api_key SET expires_at = 'infinity' WHERE actor = 'never'`);
  await database.pool.query(`UPDATE api_key SET expires_at = '-infinity' WHERE actor = 'over'`);
  const ring = startKeyRing({ databaseUrl: database.url, log }, NO_READINGS);
  onCleanUp(() => ring.stop());
  expect(await ring.find(never.token)).toMatchObject({ actor: 'never' });
  expect(await ring.find(over.token)).toBe('unknown');
});

it('reads active keys alone by their index, however many have expired', async () => {
  await database.pool.query(
    `INSERT INTO api_key (key_id, actor, scopes, token_sha256, expires_at)
     SELECT lpad(n::text, 12, '0'), 'past', ARRAY['read'], sha256(n::text::bytea), now() - interval '1 day'
     FROM generate_series(1, 20000) AS n`,
  );
  await database.pool.query('ANALYZE api_key');
  const one = await withClient(async (client) => {
    const made = await createKey(client, { actor: 'one', scopes: ['read'] }); // looks at all of them
    await client.query('SELECT pg_stat_force_next_flush()');
    return made;
  });
  const reads = async () =>
    (
      await database.pool.query(
        `SELECT seq_tup_read + idx_tup_fetch AS rows FROM pg_stat_user_tables WHERE relname = 'api_key'`,
      )
    ).rows[0].rows as number;
  const before = await reads();
  const { url, stop } = await startApiHere(database, broker, { AUTH: 'required', RELAY: 'off' });
  expect((await send(url, 'GET', '/v1/accounts', undefined, headersOf(one))).status).toBe(200);
  await stop(); // its connections report what they have read as they end
  await delay(1000);
  expect((await reads()) - before).toBeLessThan(1000);
  await database.pool.query(`DELETE FROM api_key WHERE actor = 'past'`);
});

it('says of an expired key what it says of any that is not known, and makes room for the next one', async () => {
  const { url } = await startApiHere(database, broker, { AUTH: 'required', RELAY: 'off' });
  const brief = await create('rotated', { expiry: { afterMs: 2000 } });
  const other = await create('rotated', { expiry: { afterMs: 3_600_000 } });
  const ask = (key: { token: string }) => send(url, 'GET', '/v1/accounts', undefined, headersOf(key));
  expect((await ask(brief)).status).toBe(200);
  await expect(create('rotated')).rejects.toThrow('rotated has 2 active keys');
  await until('it is refused', async () => (await ask(brief)).status === 401);
  const [expired, unknown] = [await ask(brief), await ask(createToken())];
  expect(expired.body).toEqual(unknown.body);
  expect(expired.headers.get('www-authenticate')).toBe(unknown.headers.get('www-authenticate'));
  expect((await ask(other)).status).toBe(200);
  // The API counts from before its look at the keys, so that it refuses a key a moment before the
  // database does.
  await until('there is room for the next one', () =>
    create('rotated').then(
      () => true,
      () => false,
    ),
  );
  await expect(create('rotated')).rejects.toThrow('rotated has 2 active keys');
});

it('ends the stream of a key that expires, and sends it nothing later', async () => {
  const { url } = await startApiHere(database, broker, { AUTH: 'required' });
  const brief = await create('watching', { expiry: { afterMs: 4000 } });
  const watcher = await watch(url, headersOf(brief));
  await until('it has got something', () => watcher.live.length > 0);
  await watcher.ended;
  expect(Date.now() - (brief.key.expiresAt as Date).getTime()).toBeLessThan(4000);
  for (const { at } of watcher.live) expect(Date.parse(at)).toBeLessThan((brief.key.expiresAt as Date).getTime() + 50);
});

/** Makes every look at the keys wait. @returns what ends that; a test that fails before leaves it to the clean-up. */
async function lockKeys(): Promise<() => Promise<void>> {
  const blocker = await database.pool.connect();
  let unlocking: Promise<void> | undefined;
  const unlock = () => {
    unlocking ??= blocker.query('ROLLBACK').then(() => blocker.release());
    return unlocking;
  };
  onCleanUp(unlock);
  await blocker.query('BEGIN; LOCK TABLE api_key');
  return unlock;
}

/** Answers that go on, as the service holds them. */
async function holdAnswer(access: Access, headers: Record<string, string>): Promise<Response> {
  const app = express();
  app.use(access.authenticate);
  const held = new Promise<Response>((resolve) => {
    app.get('/stream', (_request, response) => {
      response.write('...');
      resolve(response);
    });
  });
  const server = app.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onCleanUp(async () => server.closeAllConnections());
  onCleanUp(async () => server.close());
  const { port } = server.address() as AddressInfo;
  const { status } = await fetch(`http://127.0.0.1:${port}/stream`, { headers });
  expect(status).toBe(200);
  return held;
}

it('lets answers go on through a slow query, and ends them when keys could not be checked for too long', async () => {
  const times = { readIntervalMs: 20, rereadIntervalMs: 10, trustedForMs: 2500 };
  const auth = { auth: 'required', clientShares: 'on' } as const;
  const options = { ...auth, databaseUrl: database.url, pool: database.pool, log };
  const access = createAccess({ ...options, rateLimit: undefined, rateLimitWindowS: 1 }, times);
  onCleanUp(() => access.stop());
  const response = await holdAnswer(access, headersOf(await create('streaming')));
  expect(access.mayGoOn(response)).toBe(true);

  const unlock = await lockKeys();
  const slowSinceMs = performance.now();
  while (performance.now() - slowSinceMs < 1000) {
    expect(access.mayGoOn(response)).toBe(true);
    await delay(20);
  }
  await until('it is ended', () => !access.mayGoOn(response), 10_000);
  await unlock();
  await until('it may again', () => access.mayGoOn(response));
});

it('ends answers of a revoked key also while a crowd of made-up keys waits to be looked up', async () => {
  const times = { readIntervalMs: 20, rereadIntervalMs: 10, trustedForMs: 60_000 };
  const ring = startKeyRing({ databaseUrl: database.url, log }, times);
  onCleanUp(() => ring.stop());
  const { token, key } = await create('leaving');
  const found = await ring.find(token);
  if (typeof found !== 'object') throw new Error(`it is ${found}`);
  await withClient((client) => revokeKey(client, key.id));
  await until('the reading lacks it', async () => (await ring.find(token)) === 'unknown');
  const unlock = await lockKeys();
  const waiting = Array.from({ length: 2000 }, () => ring.find(createToken().token));
  expect(await ring.find(token)).toBe('overloaded'); // nobody can say of whom
  expect(ring.stillCounts(found)).toBe(false);
  await unlock();
  await Promise.all(waiting);
});

it('knows when a key was used last, as the role of the API', async () => {
  const used = await create('used', { expiry: { afterMs: 3_600_000 } });
  const unused = await create('unused');
  const asRole = new URL(database.url);
  asRole.searchParams.set('options', '-c role=balance_api');
  const api = { ...database, url: asRole.href };
  const { url, stop } = await startApiHere(api, broker, { AUTH: 'required', RELAY: 'off' });
  const before = Date.now();
  expect((await send(url, 'GET', '/v1/accounts', undefined, headersOf(used))).status).toBe(200);
  const after = Date.now();
  await delay(2000);
  await stop(); // writes what it has noted
  const at = (await stored('used')).lastUsedAt?.getTime() ?? 0;
  expect(at).toBeGreaterThan(before - 50);
  expect(at).toBeLessThan(after + 1000); // when it was used, not when that was written
  expect((await stored('unused')).lastUsedAt).toBeNull();
  expect(unused.key.lastUsedAt).toBeNull();
});

it('writes the last use of a key once a minute at most, in any number of processes, and waits for nobody', async () => {
  const { key } = await create('busy');
  await database.pool.query(`CREATE TABLE writes AS SELECT key_id, last_used_at FROM api_key LIMIT 0`);
  await database.pool.query(
    `CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
     $$ BEGIN INSERT INTO writes VALUES (NEW.key_id, NEW.last_used_at); RETURN NULL; END $$`,
  );
  await database.pool.query(
    'CREATE TRIGGER note AFTER UPDATE ON api_key FOR EACH ROW WHEN (NEW.last_used_at IS DISTINCT FROM OLD.last_used_at) EXECUTE FUNCTION note()',
  );
  const writes = async () =>
    (await database.pool.query('SELECT count(*) FROM writes WHERE key_id = $1', [key.id])).rows[0].count as number;
  const processes = [1, 2, 3].map(() => startLastUses(database.pool, log, 20));
  const useFor = async (ms: number) => {
    for (const sinceMs = performance.now(); performance.now() - sinceMs < ms; await delay(5)) {
      for (const one of processes) one.note(key.id);
    }
  };
  await useFor(500);
  expect(await writes()).toBe(1);
  await database.pool.query(`UPDATE api_key SET last_used_at = now() - interval '61 seconds' WHERE key_id = $1`, [
    key.id,
  ]);
  await useFor(500);
  expect(await writes()).toBe(3); // with that of the test

  const blocker = await database.pool.connect();
  await blocker.query('BEGIN');
  await blocker.query('UPDATE api_key SET last_used_at = NULL WHERE key_id = $1', [key.id]);
  for (const one of processes) one.note(key.id);
  const stoppedAtMs = performance.now();
  await Promise.all(processes.map((one) => one.stop()));
  expect(performance.now() - stoppedAtMs).toBeLessThan(1500);
  await blocker.query('ROLLBACK');
  blocker.release();
});

it('tries again to write what could not be written', async () => {
  const { key } = await create('stubborn');
  const uses = startLastUses(database.pool, log, 20);
  onCleanUp(() => uses.stop());
  await database.pool.query('ALTER TABLE api_key RENAME TO api_key_away');
  uses.note(key.id);
  await delay(200);
  await database.pool.query('ALTER TABLE api_key_away RENAME TO api_key');
  await until('it is written', async () => (await stored('stubborn')).lastUsedAt !== null);
});
