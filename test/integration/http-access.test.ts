// Who may call what: keys, scopes, revocation, rotation, and the wrong ways to show a key. Over
// real HTTP.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startKeyRing } from '../../src/api/access/key-ring.ts';
import { calls } from '../../src/api/calls/table.ts';
import { createKey, revokeKey } from '../../src/cli/api-keys.ts';
import { createToken, SCOPES, type Scope } from '../../src/shared/api-key.ts';
import { createLogger } from '../../src/shared/logging.ts';
import {
  type Broker,
  cleanUp,
  createAccount,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  drained,
  fillLedger,
  insertAccounts,
  onCleanUp,
  recordDirectly,
  send,
  startApiHere,
  startWorkerHere,
  subscribe,
  until,
} from '../support/harness.ts';
import { deliver, type Message, post, stateOf } from '../support/http-client.ts';

const UPDATES = '/v1/balance-updates';
const REVOKED_WITHIN_MS = 3000;
const REFUSED_BEFORE_HANDLER = ['unauthorized', 'forbidden', 'not_found', 'method_not_allowed', 'rate_limited'];

let database: Database;
let broker: Broker;
let url: string;
let everything: Record<string, string>;

beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
  ({ url } = await startApiHere(database, broker, { AUTH: 'required' }));
  ({ headers: everything } = await createApiKey(database, 'everything'));
  await send(url, 'POST', '/v1/accounts', { id: 'alice', overdraftLimit: 1000 }, everything);
});
afterAll(cleanUp);

const withToken = (token: string) => ({ authorization: `Bearer ${token}` });

async function revoke(id: string, { pool } = database): Promise<void> {
  const client = await pool.connect();
  await revokeKey(client, id);
  client.release();
}

const others = (scope: Scope) => SCOPES.filter((one) => one !== scope);

it.each(calls)('lets a key with the scope $scope alone $method $path', async ({ id, scope, method, path, body }) => {
  const [example] = Object.values(body?.examples ?? {});
  const as = (headers: Record<string, string>) =>
    send(url, method.toUpperCase() as 'GET', path.replace(/:\w+/g, 'alice'), example, headers);
  const wrong = await createApiKey(database, `${id}.wrong`, others(scope));
  const before = await stateOf(database);
  const refused = await as(wrong.headers);
  expect(refused).toMatchObject({ status: 403, body: { code: 'forbidden' } });
  expect(refused.body.detail).toContain(scope);
  expect(refused.headers.get('www-authenticate')).toBe(
    `Bearer realm="highload-balance", error="insufficient_scope", scope="${scope}"`,
  );
  const without = await as({});
  expect(without).toMatchObject({ status: 401, body: { code: 'unauthorized' } });
  expect(without.headers.get('www-authenticate')).toBe('Bearer realm="highload-balance"');
  expect(await stateOf(database)).toBe(before);

  const right = await createApiKey(database, `${id}.right`, [scope]);
  const answer = await as(right.headers);
  expect(answer.status).toBeLessThan(500);
  expect(REFUSED_BEFORE_HANDLER).not.toContain(answer.body.code);
});

it('answers HEAD with the scope that GET needs', async () => {
  const { token } = await createApiKey(database, 'head', ['write', 'admin']);
  const status = async (header?: string) => {
    const headers = header ? { authorization: header } : {};
    return (await fetch(`${url}/v1/accounts/alice`, { method: 'HEAD', headers })).status;
  };
  expect(await status()).toBe(401);
  expect(await status(`Bearer ${token}`)).toBe(403);
  expect(await status(everything.authorization)).toBe(200);
});

it('leaves health and metrics open, and nothing else, known or not', async () => {
  expect((await fetch(`${url}/metrics`)).status).toBe(200);
  for (const path of ['/livez', '/readyz', '/livez?a=b']) expect((await send(url, 'GET', path)).status).toBe(200);
  for (const path of [
    '/livez/',
    '/metrics/',
    '/Livez',
    '//livez',
    '/v1',
    '/v1/nothing',
    '/livez/../v1/accounts/alice',
    '/%6civez',
  ]) {
    expect(await deliver(url, { path }), path).toMatchObject({ status: 401, body: { code: 'unauthorized' } });
  }
});

it('takes the header in every form that the standard allows', async () => {
  const { token } = await createApiKey(database, 'forms');
  for (const value of [`Bearer ${token}`, `bearer ${token}`, `BEARER   ${token}`]) {
    const answer = await deliver(url, { path: '/v1/accounts/alice', headers: [['AUTHORIZATION', value]] });
    expect(answer.status, value).toBe(200);
  }
});

it('refuses every other form', async () => {
  const { token } = await createApiKey(database, 'other-forms');
  const whole = createToken().token;
  const wrongSecret = token.slice(0, 20) + whole.slice(20);
  const forms: [string, string][][] = [
    [['Authorization', '']],
    [['Authorization', 'Bearer']],
    [['Authorization', 'Bearer ']],
    [['Authorization', token]],
    [['Authorization', `Token ${token}`]],
    [['Authorization', `Basic ${Buffer.from(`${token}:`).toString('base64')}`]],
    [['Authorization', `Bearer "${token}"`]],
    [['Authorization', `Bearer ${token}, Bearer ${token}`]],
    [['Authorization', `Bearer ${token} ${token}`]],
    [['Authorization', `Bearer ${token}=`]],
    [['Authorization', `Bearer ${token.slice(0, -1)}`]],
    [['Authorization', `Bearer ${token.toUpperCase()}`]],
    [['Authorization', `Bearer ${whole}`]],
    [['Authorization', `Bearer ${wrongSecret}`]],
    [['Authorization', `Bearer ${'x'.repeat(10_000)}`]],
    [
      ['Authorization', `Bearer ${token}`],
      ['Authorization', `Bearer ${token}`],
    ],
    [
      ['Authorization', `Bearer ${token}`],
      ['authorization', `Bearer ${whole}`],
    ],
    [['X-Api-Key', token]],
    [['Cookie', `authorization=Bearer ${token}`]],
  ];
  for (const headers of forms) {
    const answer = await deliver(url, { path: `/v1/accounts/alice?access_token=${token}`, headers });
    expect(answer, JSON.stringify(headers)).toMatchObject({ status: 401, body: { code: 'unauthorized' } });
    expect(answer.headers.get('www-authenticate')).toMatch(
      /^Bearer realm="highload-balance"(, error="invalid_token")?$/,
    );
    expect(JSON.stringify(answer.body)).not.toContain(token);
  }
});

it('reports an unknown, a revoked and a wrong key in the same words', async () => {
  const { id, token } = await createApiKey(database, 'same-words');
  const call = (sent: string) => send(url, 'GET', '/v1/accounts/alice', undefined, withToken(sent));
  const whole = createToken().token;
  const wrong = await call(token.slice(0, 20) + whole.slice(20));
  const unknown = await call(whole);
  await revoke(id);
  await until('it is revoked', async () => (await call(token)).status === 401);
  const revoked = await call(token);
  expect(unknown.body).toEqual(wrong.body);
  expect(revoked.body).toEqual(wrong.body);
  for (const { headers } of [wrong, unknown, revoked]) {
    expect(headers.get('www-authenticate')).toBe('Bearer realm="highload-balance", error="invalid_token"');
  }
});

it('takes a new key at once, and a revoked one no more within the time that the docs say', async () => {
  const { id, headers } = await createApiKey(database, 'short-lived');
  expect((await send(url, 'GET', '/v1/accounts/alice', undefined, headers)).status).toBe(200);
  await revoke(id);
  const stops = async () => (await send(url, 'GET', '/v1/accounts/alice', undefined, headers)).status === 401;
  await until('it is refused', stops, REVOKED_WITHIN_MS);
});

it('takes both keys of a client while one replaces the other, and refuses to make a third', async () => {
  const old = await createApiKey(database, 'rotating', ['read']);
  const next = await createApiKey(database, 'rotating', ['read']);
  const status = async ({ headers }: typeof old) =>
    (await send(url, 'GET', '/v1/accounts/alice', undefined, headers)).status;
  expect([await status(old), await status(next)]).toEqual([200, 200]);
  await expect(createApiKey(database, 'rotating', ['read'])).rejects.toThrow(
    `rotating has 2 active keys, ${old.id} and ${next.id}, the maximum for one client. Revoke one first`,
  );
  await revoke(old.id);
  const third = await createApiKey(database, 'rotating', ['read']);
  expect([await status(next), await status(third)]).toEqual([200, 200]);
});

it('makes two keys at most however many commands run at once', async () => {
  const attempts = Array.from({ length: 6 }, () => createApiKey(database, 'crowd', ['read']));
  const results = await Promise.allSettled(attempts);
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(2);
});

it('names the client in the entry and in the event, for single and bulk', async () => {
  const worker = await startWorkerHere(database, broker);
  const received = await subscribe(broker);
  const { headers } = await createApiKey(database, 'billing:7', ['write']);
  await send(url, 'POST', '/v1/accounts', { id: 'named' }, everything);
  await send(url, 'POST', UPDATES, { accountId: 'named', amount: 1 }, headers);
  await send(url, 'POST', `${UPDATES}/bulk`, { updates: [{ accountId: 'named', amount: 2 }] }, everything);
  await drained(database);
  const { body } = await send(url, 'GET', '/v1/accounts/named/entries', undefined, everything);
  expect(body.entries).toMatchObject([
    { amount: 2, actor: 'everything' },
    { amount: 1, actor: 'billing:7' },
    { type: 'account.opened', actor: 'everything' },
  ]);
  const actors = () =>
    received.filter(({ body }) => body.data.accountId === 'named').map(({ body }) => body.data.actor);
  await until('all events are here', () => actors().length === 3);
  expect(actors()).toEqual(['everything', 'billing:7', 'everything']);
  await worker.stop();
});

it('keeps the idempotency keys of two clients apart, and those of one client together', async () => {
  await send(url, 'POST', '/v1/accounts', { id: 'shared' }, everything);
  const credit = async (headers: Record<string, string>, amount: number) =>
    send(url, 'POST', UPDATES, { accountId: 'shared', amount }, { ...headers, 'idempotency-key': 'order-7' });
  const shop = await createApiKey(database, 'key-shop', ['write']);
  const rotated = await createApiKey(database, 'key-shop', ['write']);
  const bank = await createApiKey(database, 'key-bank', ['write']);
  expect((await credit(shop.headers, 5)).body).toMatchObject({ balance: 5, version: 1 });
  expect((await credit(bank.headers, 7)).body).toMatchObject({ balance: 12, version: 2 });
  const again = await credit(rotated.headers, 5);
  expect(again.body).toMatchObject({ balance: 5, version: 1 });
  expect(again.headers.get('idempotent-replayed')).toBe('true');
  expect((await credit(bank.headers, 8)).body.code).toBe('idempotency_key_reused');
  const updates = [shop, bank].map(() => ({ accountId: 'shared', amount: 1, idempotencyKey: 'in bulk' }));
  for (const [headers, replays] of [
    [shop.headers, [false, true]],
    [bank.headers, [false, true]],
  ] as const) {
    const { body } = await send(url, 'POST', `${UPDATES}/bulk`, { updates }, headers);
    expect(body.results.map(({ replayed }: { replayed: boolean }) => replayed)).toEqual(replays);
  }
  expect((await send(url, 'GET', '/v1/accounts/shared', undefined, everything)).body.balance).toBe(14);
});

it('asks the database ten times a second at most, however many made-up keys arrive', async () => {
  const own = await createDatabase();
  const api = await startApiHere(own, broker, { AUTH: 'required', RELAY: 'off' });
  const { headers } = await createApiKey(own, 'known');
  const looks = async (): Promise<number> => {
    const { rows } = await own.pool.query(
      `SELECT seq_scan + idx_scan AS looks FROM pg_stat_user_tables WHERE relname = 'api_key'`,
    );
    return rows[0].looks;
  };
  const startedAt = performance.now();
  const before = await looks();
  const attack = async () => {
    for (let count = 0; count < 30; count += 1) {
      const { status } = await send(api.url, 'GET', '/v1/accounts/alice', undefined, withToken(createToken().token));
      expect([401, 503]).toContain(status); // 503: a busy machine refuses some as overloaded
    }
  };
  await Promise.all(Array.from({ length: 50 }, attack));
  expect((await send(api.url, 'GET', '/v1/accounts/alice', undefined, headers)).status).toBe(404);
  const attackMs = performance.now() - startedAt;
  let last = before;
  let changedAt = performance.now();
  await until('PostgreSQL has counted all of them', async () => {
    const now = await looks();
    if (now !== last) changedAt = performance.now();
    last = now;
    const settled = now > before && performance.now() - changedAt > 1100; // a backend reports once a second
    return settled || performance.now() - startedAt > 15_000;
  });
  const totalMs = performance.now() - startedAt;
  expect(last - before).toBeLessThan(attackMs / 100 + totalMs / 1000 + 10);
  expect(last - before).toBeLessThan(50 * 30);
});

it('continues with the keys it knows while it cannot read them, for a bounded time, and says unavailable for others', async () => {
  const own = await createDatabase();
  const { token } = await createApiKey(own, 'known');
  const times = { readIntervalMs: 20, rereadIntervalMs: 10, trustedForMs: 1500 };
  const ring = startKeyRing({ databaseUrl: own.url, log: createLogger('test', 'silent') }, times);
  onCleanUp(() => ring.stop());
  expect(await ring.find(token)).toMatchObject({ actor: 'known', scopes: [...SCOPES] });
  await own.pool.query('ALTER TABLE api_key RENAME TO api_key_away');
  await until('it notices', async () => (await ring.find(createToken().token)) === 'unavailable');
  expect(ring.find(token)).toMatchObject({ actor: 'known' });
  await until('it has trusted long enough', async () => (await ring.find(token)) === 'unavailable');
  await own.pool.query('ALTER TABLE api_key_away RENAME TO api_key');
  await until('it reads again', async () => typeof (await ring.find(token)) === 'object');
  expect(await ring.find(createToken().token)).toBe('unknown');
});

it('lets a bounded crowd of unknown keys wait for a database that hesitates', async () => {
  const own = await createDatabase();
  const ring = startKeyRing({ databaseUrl: own.url, log: createLogger('test', 'silent') });
  onCleanUp(() => ring.stop());
  expect(await ring.find(createToken().token)).toBe('unknown');
  const client = await own.pool.connect();
  await client.query('BEGIN; LOCK TABLE api_key');
  const waiting = Array.from({ length: 2000 }, () => ring.find(createToken().token));
  expect(await ring.find(createToken().token)).toBe('overloaded');
  await client.query('COMMIT');
  client.release();
  expect(new Set(await Promise.all(waiting))).toEqual(new Set(['unknown']));
});

it('answers a client with a key when the database is down, and does not call the key wrong', async () => {
  const nowhere = { ...database, url: 'postgres://nobody:nothing@127.0.0.1:1/none' };
  const away = await startApiHere(nowhere, broker, { AUTH: 'required', RELAY: 'off' });
  const answer = await send(away.url, 'GET', '/v1/accounts/alice', undefined, everything);
  expect(answer).toMatchObject({ status: 503, body: { code: 'unavailable' } });
  expect((await send(away.url, 'GET', '/livez')).status).toBe(200);
});

it('refuses more active keys than a process holds', async () => {
  const own = await createDatabase();
  await own.pool.query(
    `INSERT INTO api_key (key_id, actor, scopes, token_sha256)
     SELECT lpad(n::text, 12, '0'), 'client-' || n, ARRAY['read'], sha256(n::text::bytea) FROM generate_series(1, 1000) AS n`,
  );
  await expect(createApiKey(own, 'one-more')).rejects.toThrow(/there are 1000 active keys/);
  await revoke('000000000001', own);
  const client = await own.pool.connect();
  await createKey(client, { actor: 'one-more', scopes: ['read'] });
  client.release();
});

const big = 'x'.repeat(20_000);
const pairs: { code: string; second: string; key: Scope | 'none'; message: Message }[] = [
  { code: 'unauthorized', second: 'an unknown path', key: 'none', message: { path: '/v1/nothing' } },
  { code: 'unauthorized', second: 'a path that cannot be decoded', key: 'none', message: { path: '/v1/accounts/%zz' } },
  { code: 'unauthorized', second: 'a wrong method', key: 'none', message: { method: 'DELETE', path: UPDATES } },
  { code: 'unauthorized', second: 'a body that is too large', key: 'none', message: post(UPDATES, big) },
  { code: 'forbidden', second: 'a body that is too large', key: 'read', message: post(UPDATES, big) },
  { code: 'forbidden', second: 'a broken body', key: 'read', message: post(UPDATES, '{') },
  { code: 'forbidden', second: 'a bad id', key: 'write', message: { path: '/v1/accounts/a%20b' } },
  { code: 'forbidden', second: 'an unknown account', key: 'admin', message: { path: '/v1/accounts/nobody' } },
  { code: 'not_found', second: 'no scope at all', key: 'read', message: post('/v1/nothing', '{}') },
  { code: 'method_not_allowed', second: 'no scope at all', key: 'read', message: { method: 'PUT', path: UPDATES } },
];

it.each(pairs)('answers $code before $second ($key)', async ({ code, key, message }) => {
  const keyHeaders: [string, string][] = [];
  if (key !== 'none') {
    const { token } = await createApiKey(database, `pair-${key}-${Math.random().toString(36).slice(2)}`, [key]);
    keyHeaders.push(['Authorization', `Bearer ${token}`]);
  }
  const before = await stateOf(database);
  const answer = await deliver(url, { ...message, headers: [...(message.headers ?? []), ...keyHeaders] });
  expect(answer.body).toMatchObject({ code });
  expect(await stateOf(database)).toBe(before);
});

it('asks for no key with AUTH=off, and names nobody', async () => {
  const open = await startApiHere(database, broker, { RELAY: 'off' });
  await createAccount(open.url, 'open', 5);
  const { rows } = await database.pool.query(`SELECT actor FROM outbox WHERE account_id = 'open'`);
  expect(rows).toEqual([{ actor: null }, { actor: null }]);
});

it('takes requests without keys only when they are meant for this machine, and answers what anybody may ask', async () => {
  const { url: open } = await startApiHere(database, broker, { RELAY: 'off' });
  const ask = (host: string, path = '/v1/accounts/alice') => deliver(open, { path, headers: [['Host', host]] });
  for (const host of [
    'localhost',
    'LOCALHOST:3000',
    'balance.localhost:80',
    '127.0.0.1:3000',
    '127.1.2.3',
    '[::1]:3000',
  ])
    expect({ host, status: (await ask(host)).status }).toEqual({ host, status: 200 });
  for (const host of [
    'evil.example',
    'localhost.evil.example:3000',
    '127.0.0.1.evil.example',
    'evil.example,localhost',
  ])
    expect({ host, code: (await ask(host)).body.code }).toEqual({ host, code: 'misdirected' });
  const before = await stateOf(database);
  const update = post(UPDATES, { accountId: 'alice', amount: 1 }, ['Host', 'evil.example']);
  expect((await deliver(open, update)).status).toBe(421);
  expect(await stateOf(database)).toEqual(before);
  expect((await ask('balance.internal', '/livez')).status).toBe(200);
});

it('breaks off the export of a key that is revoked', async () => {
  await insertAccounts(database, 'huge');
  await recordDirectly(database, 'huge', 0, 0);
  await fillLedger(database, 'huge', 80_000, 'x'.repeat(250));
  const path = '/v1/accounts/huge';
  const { id, headers } = await createApiKey(database, 'exporting', ['read']);
  const { body } = await fetch(`${url}${path}/entries/export?format=jsonl`, { headers });
  const reader = (body as ReadableStream<Uint8Array>).getReader();
  expect((await reader.read()).value).toBeDefined(); // the rest does not fit between the service and a client that reads nothing
  await revoke(id);
  await until('it is refused', async () => (await send(url, 'GET', path, undefined, headers)).status === 401);
  const readOn = async () => {
    while (!(await reader.read()).done);
  };
  await expect(readOn()).rejects.toThrow('terminated');
});
