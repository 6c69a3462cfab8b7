// Clients share the service: what one asks too much of is refused to that one, and the others get
// theirs.
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createBodyReader } from '../../src/api/http/json-body.ts';
import { createPieces } from '../../src/api/http/pieces.ts';
import { startServer } from '../../src/api/http/server.ts';
import {
  type Answer,
  cleanUp,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  fillLedger,
  insertAccounts,
  onCleanUp,
  recordDirectly,
  send,
  startApiHere,
  until,
} from '../support/harness.ts';
import { bytesOf, lockAccount, open, post, waitingBackends } from '../support/http-client.ts';

const UPDATES = '/v1/balance-updates';
const ENTRIES = 300;

type Headers = Record<string, string>;

let database: Database;
let url: string;
let greedy: Headers;
let other: Headers;

async function start(settings: Record<string, string> = {}): Promise<void> {
  ({ url } = await startApiHere(database, createBroker(), { RELAY: 'off', AUTH: 'required', ...settings }));
}

beforeEach(async () => {
  database = await createDatabase();
  ({ headers: greedy } = await createApiKey(database, 'greedy'));
  ({ headers: other } = await createApiKey(database, 'other'));
  await insertAccounts(database, 'a', 'b');
});
afterEach(cleanUp);

/** A history that can be read: all of it is in the ledger. */
async function fillHistory(id: string): Promise<void> {
  await recordDirectly(database, id, 0, 0);
  await fillLedger(database, id, ENTRIES);
  await database.pool.query('UPDATE account SET balance = $2, version = $2 WHERE account_id = $1', [id, ENTRIES]);
}

/** A session that keeps everybody from reading a table until it is released. */
async function lockTable(table: string): Promise<() => Promise<void>> {
  const client = await database.pool.connect();
  await client.query('BEGIN');
  await client.query(`LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`);
  let isLocked = true;
  const release = async () => {
    if (!isLocked) return;
    isLocked = false;
    await client.query('COMMIT');
    client.release();
  };
  onCleanUp(release); // a test that fails before it would keep the API from stopping
  return release;
}

const backendsWait = (count: number) =>
  until(`${count} backends wait`, async () => (await waitingBackends(database)).length === count);
const credit = (headers: Headers, accountId = 'a', more: object = {}) =>
  send(url, 'POST', UPDATES, { accountId, amount: 1, ...more }, headers);
const page = (headers: Headers) => send(url, 'GET', '/v1/accounts/a/entries?limit=1000', undefined, headers);
const statuses = (answers: readonly Answer[]) => answers.map(({ status }) => status);

async function metric(line: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(
    text
      .split('\n')
      .find((one) => one.startsWith(`${line} `))
      ?.slice(line.length),
  );
}
const waitingReads = () => metric('postgres_pool_connections{state="waited_for"}');

describe('reads', () => {
  const request = (path: string, headers: Headers) =>
    bytesOf({ path, headers: [...Object.entries(headers), ['Connection', 'keep-alive']] });

  it('are dropped where their clients have left, before they cost a query', async () => {
    await start();
    await fillHistory('a');
    const release = await lockTable('ledger');
    const pages = Array.from({ length: 300 }, () => {
      const { socket } = open(url);
      socket.write(request('/v1/accounts/a/entries?limit=1000', greedy));
      return socket;
    });
    await until('all wait', async () => (await waitingReads()) === 300 - 2);
    await backendsWait(2);
    for (const socket of pages) socket.destroy();
    await until('none waits', async () => (await waitingReads()) === 0);
    await backendsWait(2); // those that were in flight: no connection was free for the others
    await release();
    expect((await page(other)).body.entries).toHaveLength(ENTRIES + 1);
  });

  it('wait in a bounded queue, in which another client finds a place', async () => {
    await start();
    await fillHistory('a');
    const release = await lockTable('ledger');
    const connections = Array.from({ length: 1100 }, () => {
      const connection = open(url);
      onCleanUp(async () => connection.socket.destroy());
      connection.socket.write(request('/v1/accounts/a/entries', greedy));
      return connection;
    });
    const refused = () => connections.filter(({ received }) => received().length > 0);
    await until('what is too much is refused', () => refused().length === 1100 - 1000 - 2);
    const [first] = refused();
    expect(first?.received().toString()).toMatch(/^HTTP\/1\.1 503 .*\r\nretry-after: 1\r\n.*"overloaded"/is);
    const wanted = page(other);
    await until('it has the place of another', () => refused().length === 1100 - 1000 - 2 + 1);
    const startedAtMs = performance.now();
    await release();
    expect((await wanted).status).toBe(200);
    // In its turn, not after a thousand others.
    expect(connections.filter(({ received }) => received().toString().startsWith('HTTP/1.1 200')).length).toBeLessThan(
      100,
    );
    expect(performance.now() - startedAtMs).toBeLessThan(20_000);
  });

  it('do not keep an operator from freezing an account, nor hold up other reads by key', async () => {
    await start();
    await fillHistory('a');
    const release = await lockTable('ledger');
    const pages = Array.from({ length: 50 }, () => page(greedy));
    await backendsWait(2);
    const frozen = await send(url, 'PATCH', '/v1/accounts/b', { status: 'frozen' }, greedy);
    expect(frozen).toMatchObject({ status: 200, body: { status: 'frozen' } });
    expect((await send(url, 'GET', '/v1/accounts/b', undefined, greedy)).status).toBe(200);
    expect((await send(url, 'POST', '/v1/accounts', { id: 'c' }, greedy)).status).toBe(201);
    await release();
    for (const status of statuses(await Promise.all(pages))) expect(status).toBe(200);
  });

  it('that have waited for five seconds are refused', async () => {
    await start();
    await fillHistory('a');
    const release = await lockTable('ledger');
    const inFlight = [page(greedy), page(greedy)];
    await backendsWait(2);
    const refused = await page(greedy);
    expect(refused).toMatchObject({ status: 503, body: { code: 'overloaded' } });
    expect(refused.headers.get('retry-after')).toBe('1');
    expect(await waitingReads()).toBe(0);
    await release();
    expect(statuses(await Promise.all(inFlight))).toEqual([200, 200]);
  });

  it('of pages leave time to updates while those come, and take what they can when none do', async () => {
    await start({ PAGES_SHARE_PERCENT: '1' });
    await fillHistory('a');
    const pages = async (expected: readonly number[]): Promise<number> => {
      const startedAtMs = performance.now();
      for (let count = 0; count < 10; count += 1) expect(expected).toContain((await page(greedy)).status);
      return performance.now() - startedAtMs;
    };
    const aloneMs = Math.min(await pages([200]), await pages([200]), await pages([200]));
    let sending = true;
    let sent = 0;
    // So many that there are 20 a second, however long each takes on a busy machine.
    const updates = Array.from({ length: 40 }, async () => {
      for (; sending; sent += 1) await credit(other, 'b');
    });
    await delay(1100); // it looks once a second whether updates come
    await page(greedy);
    await delay(1100);
    const sentBefore = sent;
    const besideMs = await pages([200, 503]); // where reading takes long, a page waits for longer than it may
    expect(sent - sentBefore).toBeGreaterThan(20 * (besideMs / 1000));
    sending = false;
    await Promise.all(updates);
    expect(besideMs).toBeGreaterThan(aloneMs + 1000); // each waits for 400 times what reading took
  });

  it('take turns by client', async () => {
    await start();
    await fillHistory('a');
    const release = await lockTable('ledger');
    let done = 0;
    const pages = Array.from({ length: 100 }, () => page(greedy).finally(() => (done += 1)));
    await backendsWait(2);
    await until('all wait', async () => (await waitingReads()) === 98);
    const one = page(other);
    await until('it waits', async () => (await waitingReads()) === 99);
    await release();
    expect((await one).status).toBe(200);
    expect(done).toBeLessThan(20);
    await Promise.all(pages);
  });
});

describe('exports and verifications', () => {
  const EXPORT = '/v1/accounts/a/entries/export?format=csv';

  it('are taken of another client while one has all that it may have', async () => {
    await start();
    await fillHistory('a');
    const release = await lockTable('ledger');
    const exported = (headers: Headers) => fetch(url + EXPORT, { headers });
    const mine = [exported(greedy), exported(greedy)];
    await backendsWait(2);
    const third = await exported(greedy);
    expect(third.status).toBe(503);
    const others = exported(other);
    await until('it waits', async () => (await waitingReads()) === 1);
    await release();
    for (const answer of await Promise.all([...mine, others])) {
      expect(answer.status).toBe(200);
      expect((await answer.text()).split('\r\n')).toHaveLength(1 + 1 + ENTRIES + 1);
    }
  });

  it('let another client verify an account after the one that is at it', async () => {
    await start();
    const verify = (headers: Headers) => send(url, 'GET', '/v1/accounts/a/verification', undefined, headers);
    const release = await lockTable('ledger');
    const first = verify(greedy);
    await backendsWait(1);
    expect((await verify(greedy)).body.code).toBe('overloaded');
    const second = verify(other);
    await delay(100);
    await release();
    expect(statuses(await Promise.all([first, second]))).toEqual([200, 200]);
    expect((await verify(greedy)).status).toBe(200);
  });
});

it('gives another client a console stream though one has all of them, and ends one of those', async () => {
  await start();
  const stream = async (headers: Headers) => {
    const answer = await fetch(`${url}/console/stream`, { headers });
    let isOver = false;
    if (answer.status === 200) {
      const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
      onCleanUp(() => reader.cancel());
      void (async () => {
        while (!(await reader.read()).done);
        isOver = true;
      })().catch(() => {});
    }
    return { status: answer.status, isOver: () => isOver };
  };
  const mine: Awaited<ReturnType<typeof stream>>[] = [];
  for (let index = 0; index < 20; index += 1) mine.push(await stream(greedy));
  expect(mine.map(({ status }) => status)).toEqual(Array(20).fill(200));
  expect((await stream(greedy)).status).toBe(503);
  expect((await stream(other)).status).toBe(200);
  await until('the newest of the others has ended', () => mine.at(-1)?.isOver() === true);
  expect(mine.slice(0, -1).some(({ isOver }) => isOver())).toBe(false);
});

describe('updates', () => {
  it('of a client that sends few are in the next batch, and find room where another left none', async () => {
    await start({ LANES: '1', BATCH_ROWS_MAX: '10', QUEUE_ROWS_MAX: '100', QUEUE_WAIT_MAX_MS: '600000' });
    const lock = await lockAccount(database, 'a');
    const first = credit(greedy);
    await backendsWait(1);
    const flood = Array.from({ length: 120 }, () => credit(greedy));
    await until('the queue is full', async () => (await metric('balance_changes_waiting')) === 100);
    const refused = await Promise.any(flood);
    expect(refused).toMatchObject({ status: 503, body: { code: 'overloaded' } });
    const few = [credit(other), credit(other), credit(other)];
    await delay(200);
    expect(await metric('balance_changes_waiting')).toBe(100);
    await lock.release();
    for (const { status, body } of await Promise.all(few)) {
      expect(status).toBe(200);
      expect(body.version).toBeLessThanOrEqual(1 + 10); // after the one in flight
    }
    const answers = await Promise.all([first, ...flood]);
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1 + 100 - 3);
    expect(answers.filter(({ body }) => body.code === 'overloaded')).toHaveLength(20 + 3);
  });

  it('are first come, first served where clients have no shares', async () => {
    await start({
      ...{ LANES: '1', BATCH_ROWS_MAX: '10', QUEUE_ROWS_MAX: '100', QUEUE_WAIT_MAX_MS: '600000' },
      CLIENT_SHARES: 'off',
    });
    const lock = await lockAccount(database, 'a');
    const first = credit(greedy);
    await backendsWait(1);
    const flood = Array.from({ length: 100 }, () => credit(greedy));
    await until('the queue is full', async () => (await metric('balance_changes_waiting')) === 100);
    expect((await credit(other)).body.code).toBe('overloaded');
    await lock.release();
    for (const status of statuses(await Promise.all([first, ...flood]))) expect(status).toBe(200);
  });

  it('in bulk are parsed in turn, by client, and only as the lanes need more', async () => {
    await start({ LANES: '1', BATCH_ROWS_MAX: '100', QUEUE_WAIT_MAX_MS: '600000' });
    const bulk = (headers: Headers, count: number) =>
      send(url, 'POST', `${UPDATES}/bulk`, { updates: Array(count).fill({ accountId: 'a', amount: 1 }) }, headers);
    const lock = await lockAccount(database, 'a');
    let done = 0;
    // Few enough that a slow machine has all of them answered before the last has waited too long.
    const flood = Array.from({ length: 12 }, () => bulk(greedy, 1000).finally(() => (done += 1)));
    await backendsWait(1);
    await delay(300);
    expect(await metric('balance_changes_waiting')).toBeLessThan(3000); // of 12,000
    const one = bulk(other, 10);
    await delay(100);
    await lock.release();
    const { body } = await one;
    for (const result of body.results) expect(result.status).toBe(200);
    expect(body.results.at(-1).version).toBeLessThan(3000);
    expect(done).toBeLessThan(5);
    for (const { body } of await Promise.all(flood)) {
      for (const { status } of body.results) expect(status).toBe(200);
    }
  });

  it('in bulk whose clients have left before their turn are not applied', async () => {
    await start({ LANES: '1', BATCH_ROWS_MAX: '10', QUEUE_WAIT_MAX_MS: '600000' });
    const updates = Array(50).fill({ accountId: 'a', amount: 1 });
    const lock = await lockAccount(database, 'a');
    const kept = send(url, 'POST', `${UPDATES}/bulk`, { updates }, greedy);
    await backendsWait(1);
    const gone = Array.from({ length: 20 }, () => {
      const { socket } = open(url);
      const more = Object.entries({ ...greedy, Connection: 'keep-alive' });
      socket.write(bytesOf(post(`${UPDATES}/bulk`, { updates }, ...more)));
      return socket;
    });
    await delay(300);
    for (const socket of gone) socket.destroy();
    await delay(100);
    await lock.release();
    expect((await kept).body.results.at(-1)).toMatchObject({ status: 200 });
    const { body } = await credit(other);
    expect(body.version).toBeLessThan(20 * 50);
  });
});

describe('declines', () => {
  const debit = (headers: Headers, key: string, amount = -100) =>
    send(url, 'POST', UPDATES, { accountId: 'a', amount }, { ...headers, 'idempotency-key': key });
  const kept = async () => (await database.pool.query('SELECT count(*) FROM idempotency_key')).rows[0].count;

  it('of a client are remembered up to a limit, beyond which nothing is decided', async () => {
    await start({ DECLINES_KEPT_MAX: '5' });
    for (let index = 0; index < 5; index += 1) {
      expect((await debit(greedy, `key-${index}`)).body.code).toBe('insufficient_funds');
    }
    const refused = await debit(greedy, 'key-5');
    expect(refused).toMatchObject({ status: 429, body: { code: 'rate_limited', accountId: 'a' } });
    expect(refused.headers.get('retry-after')).toBe('1');
    expect(await kept()).toBe(5);
    // What was declined stays so, what was not decided is decided by its retry, and what applies is
    // applied.
    expect((await credit(greedy, 'a', { amount: 100 })).status).toBe(200);
    const retried = await debit(greedy, 'key-0');
    expect(retried.body.code).toBe('insufficient_funds');
    expect(retried.headers.get('idempotent-replayed')).toBe('true');
    expect((await debit(greedy, 'key-5')).body).toMatchObject({ balance: 0 });
    expect((await debit(greedy, 'key-5')).headers.get('idempotent-replayed')).toBe('true');
    // Each client has its own.
    expect((await debit(other, 'key-0')).body.code).toBe('insufficient_funds');
  });

  it('of transfers, of bulk and of atomic requests count too, and those without a key do not', async () => {
    await start({ DECLINES_KEPT_MAX: '3' });
    for (let index = 0; index < 10; index += 1) expect((await credit(greedy, 'a', { amount: -1 })).status).toBe(400);
    const transfer = (key: string) =>
      send(url, 'POST', '/v1/transfers', { from: 'a', to: 'b', amount: 5 }, { ...greedy, 'idempotency-key': key });
    const bulk = (updates: object[], more: object = {}, headers: Headers = {}) =>
      send(url, 'POST', `${UPDATES}/bulk`, { updates, ...more }, { ...greedy, ...headers });
    expect((await transfer('one')).body.code).toBe('insufficient_funds');
    const several = ['x', 'y'].map((idempotencyKey) => ({ accountId: 'a', amount: -1, idempotencyKey }));
    const { results } = (await bulk(several)).body;
    expect(results.map(({ code }: { code: string }) => code)).toEqual(['insufficient_funds', 'insufficient_funds']);
    expect((await transfer('two')).body.code).toBe('rate_limited');
    const debits = [
      { accountId: 'a', amount: 1 },
      { accountId: 'a', amount: -9 },
    ];
    const atomic = await bulk(debits, { atomic: true }, { 'idempotency-key': 'three' });
    expect(atomic.body.results.map(({ code }: { code: string }) => code)).toEqual(['rate_limited', 'rate_limited']);
    const mixed = await bulk([
      { accountId: 'a', amount: -1, idempotencyKey: 'z' },
      { accountId: 'a', amount: 7, idempotencyKey: 'applied' },
    ]);
    expect(statuses(mixed.body.results)).toEqual([429, 200]);
    const twin = { accountId: 'a', amount: -99, idempotencyKey: 'twin' };
    expect(statuses((await bulk([twin, twin])).body.results)).toEqual([429, 429]);
    expect(await kept()).toBe(3 + 1);
  });

  it('have no limit where clients have no shares', async () => {
    await start({ DECLINES_KEPT_MAX: '1', CLIENT_SHARES: 'off' });
    for (let index = 0; index < 5; index += 1) {
      expect((await debit(greedy, `key-${index}`)).body.code).toBe('insufficient_funds');
    }
  });
});

const clientHeader = ({ headers }: { headers: NodeJS.Dict<string | string[]> }) => String(headers['x-client'] ?? '');

it('takes the requests of a client within its share while another floods the event loop', async () => {
  const costMs = 5;
  const server = await startServer(
    (_request, response) => {
      for (const end = performance.now() + costMs; performance.now() < end; );
      response.end('{}');
    },
    ...(['127.0.0.1', 0, {}, clientHeader] as const),
  );
  onCleanUp(() => server.stop());
  const own = `http://127.0.0.1:${server.port}`;
  let sending = true;
  let refused = 0;
  const flood = Array.from({ length: 50 }, async () => {
    while (sending) {
      const { status } = await send(own, 'POST', UPDATES, { accountId: 'a' }, { 'x-client': 'greedy' });
      if (status === 503) refused += 1;
    }
  });
  await until('the flood is refused', () => refused > 200);
  const within: number[] = [];
  for (let index = 0; index < 40; index += 1) {
    within.push((await send(own, 'POST', UPDATES, { accountId: 'a' }, { 'x-client': 'within' })).status);
    await delay(30);
  }
  sending = false;
  await Promise.all(flood);
  expect(within.filter((status) => status === 200).length).toBeGreaterThanOrEqual(38);
});

it('takes a body that comes in pieces though another client has begun more than all may hold together', async () => {
  const { readJsonBody } = createBodyReader(createPieces(), clientHeader, 100_000);
  const server = await startServer(
    async (request, response) => {
      await readJsonBody(request, 20_000).then(
        () => response.writeHead(200),
        ({ code }) => response.writeHead(code === 'overloaded' ? 503 : 400),
      );
      response.end();
    },
    '127.0.0.1',
    0,
  );
  onCleanUp(() => server.stop());
  const own = `http://127.0.0.1:${server.port}`;
  const begin = (client: string, bytes: number) => {
    const connection = open(own);
    onCleanUp(async () => connection.socket.destroy());
    const head = `POST / HTTP/1.1\r\nHost: localhost\r\nX-Client: ${client}\r\nContent-Type: application/json\r\nContent-Length: 16000\r\n\r\n`;
    connection.socket.write(head + ' '.repeat(bytes));
    return connection;
  };
  const unfinished: ReturnType<typeof begin>[] = [];
  const refused = () => unfinished.filter(({ received }) => received().toString().startsWith('HTTP/1.1 503')).length;
  await until('no more of them are taken', async () => {
    unfinished.push(begin('greedy', 15_000));
    await delay(20);
    return refused() > 3;
  });
  const before = refused();
  const body = begin('other', 15_000);
  await until('one of the others made room', () => refused() > before);
  body.socket.write(`${' '.repeat(998)}{}`);
  await until('it is answered', () => body.received().length > 0);
  expect(body.received().toString()).toMatch(/^HTTP\/1\.1 200/);
});
