// The rate limit: counted by key, reported in the standard headers, one for all processes behind a
// port.
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  type Answer,
  type Broker,
  cleanUp,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  environmentOf,
  insertAccounts,
  send,
  spawnProcess,
  startApiHere,
  until,
} from '../support/harness.ts';
import { bytesOf, deliver, type Message, open, post } from '../support/http-client.ts';

const UPDATES = '/v1/balance-updates';
const BULK = `${UPDATES}/bulk`;
const LIMIT = 5;

let database: Database;
let broker: Broker;
let url: string;

beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
  ({ url } = await startLimited({ RATE_LIMIT: String(LIMIT), RATE_LIMIT_WINDOW_S: '60' }));
  await insertAccounts(database, 'alice');
});
afterAll(cleanUp);

const startLimited = (extra: Record<string, string>) =>
  startApiHere(database, broker, { RELAY: 'off', AUTH: 'required', ...extra });
const credit = (headers: Record<string, string>, base = url) =>
  send(base, 'POST', UPDATES, { accountId: 'alice', amount: 1 }, headers);
const bulk = (count: number, headers: Record<string, string>) =>
  send(url, 'POST', BULK, { updates: Array(count).fill({ accountId: 'alice', amount: 1 }) }, headers);
const versionOfAlice = async () =>
  (await database.pool.query(`SELECT version FROM account WHERE account_id = 'alice'`)).rows[0].version;
/**
 * Limit and rest, from headers that say it in the standard form; seconds are some of the window of
 * 60.
 */
function rateOf({ headers }: Answer): [limit: number, left: number] {
  const [, limit] = /^"key";q=(\d+);w=60$/.exec(headers.get('ratelimit-policy') ?? '') ?? [];
  const [, left] = /^"key";r=(\d+);t=[3-6]\d$/.exec(headers.get('ratelimit') ?? '') ?? [];
  return [Number(limit), Number(left)];
}

it('counts down in the headers, and refuses what is above the limit without applying it', async () => {
  const { headers } = await createApiKey(database, 'steady', ['write']);
  for (let left = LIMIT - 1; left >= 0; left -= 1) {
    const answer = await credit(headers);
    expect(answer.status).toBe(200);
    expect(rateOf(answer)).toEqual([LIMIT, left]);
  }
  const before = await versionOfAlice();
  for (let count = 0; count < 3; count += 1) {
    const refused = await credit(headers);
    expect(refused).toMatchObject({ status: 429, body: { code: 'rate_limited' } });
    expect(refused.body.detail).toContain('The limit is 5 in 60 s');
    expect(rateOf(refused)).toEqual([LIMIT, 0]);
    expect(refused.headers.get('retry-after')).toMatch(/^[3-6]\d$/);
  }
  expect(await versionOfAlice()).toBe(before);
});

it('counts each key by itself', async () => {
  const one = await createApiKey(database, 'pair', ['write']);
  const other = await createApiKey(database, 'pair', ['write']);
  for (let count = 0; count < LIMIT; count += 1) await credit(one.headers);
  expect((await credit(one.headers)).status).toBe(429);
  expect((await credit(other.headers)).status).toBe(200);
});

it('lets requests pass again when the window is over', async () => {
  const quick = await startLimited({ RATE_LIMIT: '2', RATE_LIMIT_WINDOW_S: '1' });
  const { headers } = await createApiKey(database, 'patient', ['write']);
  const startedAt = performance.now();
  const refused = async () => (await credit(headers, quick.url)).status === 429;
  await until('it is refused', refused);
  expect((await credit(headers, quick.url)).headers.get('retry-after')).toBe('1');
  await until('it passes again', async () => !(await refused()));
  expect(performance.now() - startedAt).toBeGreaterThan(900);
});

it('counts the updates of a bulk request, and nothing for one that is refused beyond its own 1', async () => {
  const { headers } = await createApiKey(database, 'bulky', ['write']);
  const before = await versionOfAlice();
  const first = await bulk(3, headers);
  expect(first.status).toBe(200);
  expect(rateOf(first)).toEqual([LIMIT, 2]);
  const second = await bulk(3, headers);
  expect(second).toMatchObject({ status: 429, body: { code: 'rate_limited' } });
  expect(second.body.detail).toContain('this request counts 3');
  expect(await versionOfAlice()).toBe(before + 3);
  expect((await credit(headers)).status).toBe(200);
  expect((await credit(headers)).status).toBe(429);
});

it('counts the bytes of a bulk request, whatever turns out to be in it', async () => {
  const { headers } = await createApiKey(database, 'wordy', ['write']);
  const wrong = (bytes: number) => send(url, 'POST', BULK, '{"updates":[{}]}'.padEnd(bytes), headers);
  const invalid = await wrong(2 * 4096 + 1);
  expect(invalid).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
  expect(rateOf(invalid)).toEqual([LIMIT, LIMIT - 3]);
  const refused = await wrong(3 * 4096);
  expect(refused).toMatchObject({ status: 429, body: { code: 'rate_limited' } });
  expect(refused.body.detail).toContain('this request counts 3');
  expect(rateOf(await wrong(100))).toEqual([LIMIT, 0]); // what was refused counts 1 as before
});

it('counts updates or bytes of a bulk request, whichever is more', async () => {
  const { headers } = await createApiKey(database, 'measured', ['write']);
  const update = { accountId: 'alice', amount: 1 };
  const few = await send(url, 'POST', BULK, JSON.stringify({ updates: [update] }).padEnd(2 * 4096), headers);
  expect(rateOf(few)).toEqual([LIMIT, LIMIT - 2]);
  const many = await send(
    url,
    'POST',
    BULK,
    JSON.stringify({ updates: [update, update, update] }).padEnd(4097),
    headers,
  );
  expect(rateOf(many)).toEqual([LIMIT, 0]);
});

it('refuses a bulk request that is larger than the limit before it is read, in chunks after that', async () => {
  const { headers } = await createApiKey(database, 'huge', ['write']);
  const all: [string, string][] = [...Object.entries(headers), ['Content-Type', 'application/json']];
  const bytes = 5 * 4096 + 1;
  const announced: Message = { method: 'POST', path: BULK, headers: [...all, ['Content-Length', String(bytes)]] };
  expect((await deliver(url, announced)).body).toMatchObject({ code: 'rate_limited' }); // and nothing of it was sent
  const chunked: Message = {
    ...{ method: 'POST', path: BULK, headers: [...all, ['Transfer-Encoding', 'chunked']] },
    body: `${bytes.toString(16)}\r\n${' '.repeat(bytes)}\r\n0\r\n\r\n`,
  };
  expect((await deliver(url, chunked)).body).toMatchObject({ code: 'rate_limited' });
});

it('says that a request above the whole limit cannot be retried', async () => {
  const { headers } = await createApiKey(database, 'oversize', ['write']);
  const refused = await bulk(LIMIT + 1, headers);
  expect(refused).toMatchObject({ status: 429, body: { code: 'rate_limited' } });
  expect(refused.body.detail).toContain('send fewer updates in one');
  expect(refused.headers.has('retry-after')).toBe(false);
});

it('prefers the limit of the key, also where no other is set', async () => {
  const unlimited = await startLimited({});
  const own = await createApiKey(database, 'own-limit', ['write'], 2);
  const usual = await createApiKey(database, 'no-limit', ['write']);
  for (const base of [url, unlimited.url]) {
    const statuses = [];
    for (let count = 0; count < 3; count += 1) statuses.push((await credit(own.headers, base)).status);
    expect(statuses).toEqual([200, 200, 429]);
  }
  for (let count = 0; count < 2 * LIMIT; count += 1) {
    const answer = await credit(usual.headers, unlimited.url);
    expect(answer.status).toBe(200);
    expect(answer.headers.has('ratelimit') || answer.headers.has('ratelimit-policy')).toBe(false);
  }
});

const big = 'x'.repeat(20_000);
const pairs: { code: string; second: string; message: Message }[] = [
  { code: 'forbidden', second: 'the limit', message: { path: '/v1/accounts/alice' } },
  { code: 'not_found', second: 'the limit', message: { path: '/v1/nothing' } },
  { code: 'method_not_allowed', second: 'the limit', message: { method: 'DELETE', path: UPDATES } },
  { code: 'rate_limited', second: 'a body that is too large', message: post(UPDATES, big) },
  { code: 'rate_limited', second: 'a wrong type', message: { method: 'POST', path: UPDATES, body: '{}' } },
  { code: 'rate_limited', second: 'a broken body', message: post(UPDATES, '{') },
];

it.each(pairs)('answers $code before $second', async ({ code, message }) => {
  const { headers } = await createApiKey(database, `order-${Math.random().toString(36).slice(2)}`, ['write'], 1);
  await credit(headers);
  const all = [...(message.headers ?? []), ...Object.entries(headers)] as [string, string][];
  expect((await deliver(url, { ...message, headers: all })).body).toMatchObject({ code });
});

async function startCluster(limit: number) {
  const cluster = await spawnProcess(
    'api',
    environmentOf(database, broker, {
      RELAY: 'off',
      AUTH: 'required',
      API_PROCESSES: '3',
      RATE_LIMIT: String(limit),
      RATE_LIMIT_WINDOW_S: '60',
    }),
  );
  return { ...cluster, started: () => cluster.lines('api started'), url: cluster.url() };
}

/**
 * A crowd, with a connection each, so that it is spread over the processes. What is refused as
 * overloaded does not count.
 */
function crowd(count: number, headers: Record<string, string>, base: string): Promise<Answer[]> {
  const one = async (): Promise<Answer> => {
    const answer = await credit({ ...headers, connection: 'close' }, base);
    return answer.status === 503 ? one() : answer;
  };
  return Promise.all(Array.from({ length: count }, one));
}

it('is one limit for all processes behind a port', async () => {
  const cluster = await startCluster(40);
  const { headers } = await createApiKey(database, 'everywhere', ['write']);
  const before = await versionOfAlice();
  const answers = await crowd(120, headers, cluster.url);
  const passed = answers.filter(({ status }) => status === 200);
  expect(passed).toHaveLength(40);
  expect(answers.filter(({ status }) => status === 429)).toHaveLength(80);
  expect(await versionOfAlice()).toBe(before + 40);
  // Each number once: no process counted for itself.
  const left = passed.map((answer) => rateOf(answer)[1]);
  expect(left.sort((one, two) => one - two)).toEqual(Array.from({ length: 40 }, (_, index) => index));
});

it('continues with the same count when a process dies and another takes its place', async () => {
  const cluster = await startCluster(10);
  const { headers } = await createApiKey(database, 'survivor', ['write']);
  const passed = async (count: number) => {
    const answers = await crowd(count, headers, cluster.url);
    return answers.filter(({ status }) => status === 200).length;
  };
  expect(await passed(6)).toBe(6);
  process.kill(cluster.started()[0]?.pid as number, 'SIGKILL');
  await until('another process listens', () => cluster.started().length === 4);
  expect(await passed(12)).toBe(4);
});

it('survives that a process dies whose questions about the limit are still to be answered', async () => {
  const cluster = await startCluster(1000);
  const { headers } = await createApiKey(database, 'asked-last', ['write']);
  const all = Object.entries({ ...headers, connection: 'keep-alive' });
  const request = bytesOf(post(UPDATES, { accountId: 'alice', amount: 1 }, ...all));
  const connections = Array.from({ length: 30 }, () => open(cluster.url));
  const answered = (count: number) =>
    connections.every(({ received }) => received().toString().split('HTTP/1.1 200').length > count);
  for (const { socket } of connections) socket.write(request);
  await until('each process has some of the connections', () => answered(1));
  process.kill(cluster.child.pid as number, 'SIGSTOP'); // it answers the questions
  for (const { socket } of connections) socket.write(request);
  await delay(300);
  process.kill(cluster.started()[0]?.pid as number, 'SIGKILL');
  await delay(300); // now nobody is at the other end
  process.kill(cluster.child.pid as number, 'SIGCONT');
  await until('another process listens', () => cluster.started().length === 4);
  expect(cluster.output()).not.toContain('"msg":"stopping"');
  expect((await crowd(10, headers, cluster.url)).map(({ status }) => status)).toEqual(Array(10).fill(200));
  for (const { socket } of connections) socket.destroy();
});
