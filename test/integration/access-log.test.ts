// The access log: who was refused and what administrators did, with an id that is in the answer
// too; and how little of it a flood can write.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startApi } from '../../src/api/api.ts';
import { createKey } from '../../src/cli/api-keys.ts';
import { createToken } from '../../src/shared/api-key.ts';
import { readApiSettings } from '../../src/shared/config.ts';
import { createLogger } from '../../src/shared/logging.ts';
import {
  type Broker,
  cleanUp,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  environmentOf,
  onCleanUp,
  send,
  until,
} from '../support/harness.ts';
import { deliver, exchange, post } from '../support/http-client.ts';

const UPDATES = '/v1/balance-updates';
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

let database: Database;
let broker: Broker;
beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
});
afterAll(cleanUp);

// biome-ignore lint/suspicious/noExplicitAny: log lines of every shape
type Line = Record<string, any>;

/** An API of its own: its budgets of lines are whole. */
async function start(extra: Record<string, string> = {}) {
  const lines: Line[] = [];
  const log = createLogger('api', 'info', { write: (line: string) => void lines.push(JSON.parse(line)) });
  const settings = readApiSettings(environmentOf(database, broker, { AUTH: 'required', RELAY: 'off', ...extra }));
  const api = await startApi(settings, log);
  let stopping: Promise<void> | undefined;
  const stop = () => {
    stopping ??= api.stop();
    return stopping;
  };
  onCleanUp(stop);
  const said = (sentence: string) => lines.filter(({ msg }) => msg === sentence);
  return { url: `http://127.0.0.1:${api.port}`, said, lines, stop };
}

it('has a line for each refusal: what, who, from where, and under which id it was answered', async () => {
  const { url, said } = await start();
  const reader = await createApiKey(database, 'reader', ['read']);
  const client = await database.pool.connect();
  const bound = await createKey(client, { actor: 'tenant', scopes: ['read', 'write'], accountPrefix: 'game1:' });
  client.release();
  const limited = await createApiKey(database, 'limited', ['write'], 1);
  const forged = createToken();
  const withId = (id: string, headers: Record<string, string>) => ({ ...headers, 'x-request-id': id });
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

  await send(url, 'GET', '/v1/accounts/alice', undefined, withId('r1', {}));
  await send(url, 'GET', '/v1/accounts/alice', undefined, withId('r2', bearer(forged.token)));
  await send(url, 'POST', UPDATES, { accountId: 'alice', amount: 1 }, withId('r3', reader.headers));
  await send(url, 'POST', UPDATES, { accountId: 'bank', amount: 1 }, withId('r4', bearer(bound.token)));
  await send(url, 'GET', '/v1/accounts/bank', undefined, withId('r5', bearer(bound.token)));
  await send(url, 'GET', '/v1/accounts/game2:%20x', undefined, withId('r6', bearer(bound.token)));
  for (const id of ['-', 'r7'])
    await send(url, 'POST', UPDATES, { accountId: 'alice', amount: 1 }, withId(id, limited.headers));
  await send(
    url,
    'GET',
    '/v1/accounts/alice',
    undefined,
    withId('r8', { 'x-forwarded-for': `192.0.2.7, ${'9'.repeat(500)}` }),
  );
  await until('all lines are there', () => said('call refused').length === 8);
  const byId = Object.fromEntries(
    said('call refused').map(({ requestId, time, pid, hostname, name, ...line }) => [requestId, line]),
  );
  const common = { level: 'warn', msg: 'call refused', address: '127.0.0.1' };
  const get = { ...common, method: 'GET', route: 'none', status: 401, code: 'unauthorized' };
  expect(byId.r1).toEqual(get);
  expect(byId.r2).toEqual({ ...get, keyId: forged.id }); // of a token, this part is public
  const update = { ...common, method: 'POST', route: UPDATES, status: 403, code: 'forbidden' };
  expect(byId.r3).toEqual({ ...update, keyId: reader.id, actor: 'reader' });
  const tenant = { keyId: bound.key.id, actor: 'tenant' };
  expect(byId.r4).toEqual({ ...update, ...tenant, accountId: 'bank' });
  const read = { ...update, ...tenant, method: 'GET', route: '/v1/accounts/:id' };
  expect(byId.r5).toEqual({ ...read, accountId: 'bank' });
  expect(byId.r6).toEqual(read); // what is no account id is not repeated
  expect(byId.r7).toEqual({ ...update, status: 429, code: 'rate_limited', keyId: limited.id, actor: 'limited' });
  expect(byId.r8.forwardedFor).toHaveLength(200);
  expect(byId.r8.forwardedFor).toMatch(/^192\.0\.2\.7, 9/);
});

it('has a line for every admin call: who froze which account, with which limits', async () => {
  const { url, said } = await start();
  const { id, headers } = await createApiKey(database, 'back-office');
  const call = (method: 'POST' | 'PATCH', path: string, body: unknown, requestId: string) =>
    send(url, method, path, body, { ...headers, 'x-request-id': requestId });
  const account = { id: 'frozen', asset: 'USD/2', overdraftLimit: 100 };
  await call('POST', '/v1/accounts', account, 'open');
  await call('POST', '/v1/accounts', account, 'again');
  await call('PATCH', '/v1/accounts/frozen', { status: 'frozen', maxBalance: 5000 }, 'freeze');
  await call('PATCH', '/v1/accounts/frozen', { status: 'frozen' }, 'nothing');
  await call('PATCH', '/v1/accounts/frozen', { status: 'melted', secret: 'abc' }, 'wrong');
  await call('PATCH', '/v1/accounts/nobody', { status: 'closed' }, 'nobody');
  await send(url, 'GET', '/v1/accounts/frozen', undefined, headers);
  await send(url, 'POST', UPDATES, { accountId: 'frozen', amount: 1 }, headers);
  const lines = said('admin call').map(({ time, pid, hostname, name, level, msg, ...line }) => line);
  const who = { keyId: id, actor: 'back-office', address: '127.0.0.1' };
  const opening = { ...who, method: 'POST', route: '/v1/accounts', accountId: 'frozen' };
  const change = { ...who, method: 'PATCH', route: '/v1/accounts/:id' };
  const wanted = { asset: 'USD/2', overdraftLimit: 100, maxBalance: null };
  const open = { overdraftLimit: 100, maxBalance: null, status: 'open' };
  const frozen = { overdraftLimit: 100, maxBalance: 5000, status: 'frozen' };
  const freeze = { status: 'frozen', maxBalance: 5000 };
  expect(lines).toEqual([
    { ...opening, requestId: 'open', status: 201, wanted, outcome: 'opened', limits: open },
    { ...opening, requestId: 'again', status: 200, wanted, outcome: 'existed', limits: open },
    {
      ...{ ...change, requestId: 'freeze', status: 200, accountId: 'frozen' },
      ...{ wanted: freeze, outcome: 'changed', limits: frozen },
    },
    {
      ...{ ...change, requestId: 'nothing', status: 200, accountId: 'frozen' },
      ...{ wanted: { status: 'frozen' }, outcome: 'unchanged', limits: frozen },
    },
    { ...change, requestId: 'wrong', status: 400, code: 'invalid_request' },
    {
      ...{ ...change, requestId: 'nobody', status: 404, code: 'account_not_found' },
      ...{ accountId: 'nobody', wanted: { status: 'closed' } },
    },
  ]);
});

it('has one line for an admin call that is forbidden, and bounds those that are not valid', async () => {
  const { url, said, lines, stop } = await start();
  const client = await database.pool.connect();
  const { token } = await createKey(client, { actor: 'game', scopes: ['admin'], accountPrefix: 'game1:' });
  client.release();
  const headers = { authorization: `Bearer ${token}` };
  const open = (body: unknown) => send(url, 'POST', '/v1/accounts', body, headers);
  expect((await open({ id: 'game2:x' })).status).toBe(403);
  const refusals = () => Promise.all(Array.from({ length: 20 }, async () => (await open({ id: 'game1: x' })).status));
  for (let crowd = 0; crowd < 10; crowd += 1) expect(new Set(await refusals())).toEqual(new Set([400]));
  expect((await open({ id: 'game1:x' })).status).toBe(201);
  await stop();
  expect(said('call refused')).toMatchObject([{ actor: 'game', code: 'forbidden', accountId: 'game2:x' }]);
  expect(said('admin call').at(-1)).toMatchObject({ accountId: 'game1:x', outcome: 'opened' });
  expect(said('admin call').every(({ code }) => code !== 'forbidden')).toBe(true);
  expect(lines.length).toBeLessThan(150);
});

it('writes a bounded number of lines in a flood of refusals, says how many were left out, and whose', async () => {
  const { url, said, lines, stop } = await start();
  const { headers } = await createApiKey(database, 'noisy', ['read']);
  /** A busy machine refuses some as overloaded: those have no line. */
  let refused = 0;
  const refuse = async (...request: Parameters<typeof send>) => {
    if ((await send(...request)).status !== 503) refused += 1;
  };
  const without = async () => {
    for (let count = 0; count < 50; count += 1) await refuse(url, 'GET', '/v1/accounts/alice');
  };
  await Promise.all(Array.from({ length: 8 }, without));
  const startedAtMs = performance.now();
  const unauthorized = refused;
  for (let count = 0; count < 205; count += 1) await refuse(url, 'POST', UPDATES, {}, headers);
  await stop();
  const seconds = (performance.now() - startedAtMs) / 1000;
  // A caller with a key has its lines, whatever others without one do.
  const forbidden = said('call refused').filter(({ code }) => code === 'forbidden');
  expect(forbidden.length).toBeGreaterThanOrEqual(100);
  expect(forbidden.length).toBeLessThan(101 + seconds + 5);
  const lined = said('call refused').length - forbidden.length;
  const summaries = said('calls were refused or failed without a line of their own');
  expect(summaries.length).toBeGreaterThanOrEqual(1);
  const leftOut = summaries.reduce((sum, line) => sum + line.leftOut, 0);
  expect(leftOut + forbidden.length + lined).toBe(refused);
  const most = summaries.flatMap((line) => line.most as Line[]);
  const of = (wanted: string) => most.filter(({ code }) => code === wanted).reduce((sum, { count }) => sum + count, 0);
  expect(of('unauthorized')).toBe(unauthorized - lined);
  expect(most).toContainEqual({ code: 'forbidden', actor: 'noisy', count: expect.any(Number) });
  expect(lines.length).toBeLessThan(300);
});

it('names the request that failed, with its error, and bounds those lines too', async () => {
  const { url, said, stop } = await start();
  const { id, headers } = await createApiKey(database, 'unlucky');
  await database.pool.query('ALTER TABLE account RENAME TO account_away');
  onCleanUp(() => database.pool.query('ALTER TABLE IF EXISTS account_away RENAME TO account'));
  const read = (requestId: string) =>
    send(url, 'GET', '/v1/accounts/alice', undefined, { ...headers, 'x-request-id': requestId });
  const update = await send(
    url,
    'POST',
    UPDATES,
    { accountId: 'alice', amount: 1 },
    { ...headers, 'x-request-id': 'w' },
  );
  expect(update).toMatchObject({ status: 500, body: { code: 'internal' } });
  expect((await read('r')).status).toBe(500);
  await until('both lines are there', () => said('request failed').length === 2);
  const who = { keyId: id, actor: 'unlucky', address: '127.0.0.1', status: 500, code: 'internal', level: 'error' };
  const [written, failed] = said('request failed');
  expect(written).toMatchObject({ ...who, requestId: 'w', method: 'POST', route: UPDATES });
  expect(failed).toMatchObject({ ...who, requestId: 'r', method: 'GET', route: '/v1/accounts/:id' });
  expect(failed?.err.message).toContain('account');
  // Twenty at once: with each second there is one line more.
  for (let crowd = 0; crowd < 10; crowd += 1) await Promise.all(Array.from({ length: 20 }, () => read('more')));
  await database.pool.query('ALTER TABLE account_away RENAME TO account');
  await stop();
  expect(said('request failed').length).toBeLessThan(150);
  expect(said('calls were refused or failed without a line of their own').length).toBeGreaterThan(0);
});

it('answers every request with the id that it came with, where that is sane, else with a new one', async () => {
  const { url } = await start();
  const { token, headers } = await createApiKey(database, 'traced');
  const ask = async (...ids: string[]) => {
    const sent = ids.map((id): [string, string] => ['X-Request-Id', id]);
    const answer = await deliver(url, {
      path: '/v1/accounts',
      headers: [['Authorization', `Bearer ${token}`], ...sent],
    });
    expect(answer.status).toBe(200);
    return answer.headers.get('x-request-id');
  };
  for (const id of [
    '1',
    'a'.repeat(128),
    '01ARZ3NDEKTSV4RRFFQ69G5FAV',
    '7b8d9f7a-9f0e-4a9b-8d0e-2f1c3b4a5d6e',
    'Root=1-67891233:a/b+c_d.e',
  ]) {
    expect(await ask(id)).toBe(id);
  }
  for (const id of ['a'.repeat(129), 'a b', 'a,b', '"a"', '{"a":1}', 'a;b', 'é', '<script>', '']) {
    expect(await ask(id), id).toMatch(UUID);
  }
  expect(await ask('a', 'b')).toMatch(UUID);
  const made = await Promise.all(Array.from({ length: 20 }, () => ask()));
  expect(new Set(made).size).toBe(20);

  const answers = [
    await deliver(url, post(UPDATES, '{', ['Authorization', `Bearer ${token}`])),
    await deliver(url, { path: '/v1/nothing', headers: [['Authorization', `Bearer ${token}`]] }),
    ...(await Promise.all(
      ['/', '/livez', '/readyz', '/docs', '/console', '/openapi.json', '/v1/accounts'].map((path) =>
        deliver(url, { path }),
      ),
    )),
    await deliver(url, { method: 'DELETE', path: UPDATES, headers: [['Authorization', `Bearer ${token}`]] }),
    await deliver(url, { headers: [['X-Big', 'x'.repeat(20_000)]] }),
  ];
  for (const answer of answers) expect(answer.headers.get('x-request-id'), String(answer.status)).toMatch(UUID);
  const [rubbish] = await exchange(url, 'rubbish\r\n\r\n');
  expect(rubbish).toMatchObject({ status: 400 });
  expect(rubbish?.headers.get('x-request-id')).toMatch(UUID);
  const stream = await fetch(`${url}/console/stream`, { headers: { ...headers, 'x-request-id': 'watching' } });
  expect(stream.headers.get('x-request-id')).toBe('watching');
  await stream.body?.cancel();
  const pipelined = await exchange(
    url,
    ...['p1', 'p2'].map(
      (id) =>
        `GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: ${id}\r\n${id === 'p2' ? 'Connection: close\r\n' : ''}\r\n`,
    ),
  );
  expect(pipelined.map((answer) => answer.headers.get('x-request-id'))).toEqual(['p1', 'p2']);
});

it('never has a token, a body or a path as it was sent in a line', async () => {
  const { url, lines, stop } = await start();
  const { token, headers } = await createApiKey(database, 'discreet', ['read', 'admin']);
  const secret = 'not-for-the-log';
  await send(url, 'GET', `/v1/${secret}?q=${secret}`);
  await send(url, 'GET', '/v1/accounts', undefined, { authorization: `Bearer ${token}${secret}` });
  await send(url, 'POST', UPDATES, { accountId: secret, reference: secret, amount: 1 }, headers);
  await send(url, 'POST', '/v1/accounts', { id: 'discreet', [secret]: secret }, headers);
  await send(url, 'POST', '/v1/accounts', `{"${secret}`, headers);
  await send(url, 'PATCH', `/v1/accounts/${secret}%20`, { status: 'open' }, headers);
  await stop();
  expect(lines.filter(({ msg }) => ['call refused', 'admin call'].includes(msg))).toHaveLength(6);
  const text = JSON.stringify(lines);
  expect(text).not.toContain(secret);
  expect(text).not.toContain(token.slice(17));
});

it('logs who changes accounts where no keys are asked for, and pages that ask under another name', async () => {
  const { url, said } = await start({ AUTH: 'off' });
  await send(url, 'POST', '/v1/accounts', { id: 'local' });
  await deliver(url, { path: '/v1/accounts', headers: [['Host', 'evil.example']] });
  const fromPage: [string, string][] = [['Sec-Fetch-Site', 'cross-site']];
  await deliver(url, { path: '/v1/accounts', headers: fromPage });
  await until('the refusals are logged', () => said('call refused').length === 2);
  expect(said('admin call')).toMatchObject([{ accountId: 'local', outcome: 'opened', address: '127.0.0.1' }]);
  expect(said('admin call')[0]).not.toHaveProperty('actor');
  expect(said('call refused')).toMatchObject([
    { code: 'misdirected', status: 421, address: '127.0.0.1' },
    { code: 'cross_origin', status: 403, address: '127.0.0.1' },
  ]);
});
