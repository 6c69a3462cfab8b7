// More work than can be done: what is refused is refused at once and changes nothing, the rest
// continues.
import type { RequestListener } from 'node:http';
import { connect } from 'node:net';
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { startAccessLog } from '../../src/api/access/access-log.ts';
import { createHealthApp } from '../../src/api/app.ts';
import { startServer } from '../../src/api/http/server.ts';
import { createLogger } from '../../src/shared/logging.ts';
import {
  type Answer,
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  onCleanUp,
  send,
  startApiHere,
  until,
  verified,
} from '../support/harness.ts';
import { lockAccount, waitingBackends } from '../support/http-client.ts';
import { needing } from '../support/needing.ts';

const UPDATES = '/v1/balance-updates';

let database: Database;

beforeEach(async () => {
  database = await createDatabase();
});
afterEach(cleanUp);

it('takes no more updates after one that has waited too long, and takes them again when it was answered', async () => {
  const { url } = await startApiHere(database, createBroker(), { RELAY: 'off', LANES: '1', QUEUE_WAIT_MAX_MS: '200' });
  await createAccount(url, 'a');
  const credit = () => send(url, 'POST', UPDATES, { accountId: 'a', amount: 1 });
  const lock = await lockAccount(database, 'a');
  const sent = [credit()];
  await until('it waits for the row', async () => (await waitingBackends(database)).length === 1);
  let refused: Answer | undefined;
  await until('an update is refused', async () => {
    const update = credit();
    sent.push(update);
    refused = await Promise.race([update, delay(50, undefined)]);
    return refused !== undefined; // else it waits in the queue
  });
  expect(refused).toMatchObject({ status: 503, body: { code: 'overloaded' } });
  expect(refused?.headers.get('retry-after')).toBe('1');
  await lock.release();
  const applied = (await Promise.all(sent)).filter(({ status }) => status === 200).length;
  expect(applied).toBeGreaterThan(1); // the first, and what came in time after it
  expect((await credit()).body).toMatchObject({ balance: applied + 1, version: applied + 1 });
  expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
});

it('refuses at once what the event loop cannot serve, but not the question for its health', async () => {
  const costMs = 10;
  const server = await startServer(
    (_request, response) => {
      for (const end = performance.now() + costMs; performance.now() < end; );
      response.end('{}');
    },
    '127.0.0.1',
    0,
  );
  onCleanUp(() => server.stop());
  const url = `http://127.0.0.1:${server.port}`;
  const statuses: number[] = [];
  let refused: Answer | undefined;
  let sending = true;
  const clients = Array.from({ length: 50 }, async () => {
    while (sending) {
      const answer = await send(url, 'POST', UPDATES, { accountId: 'a', amount: 1 });
      statuses.push(answer.status);
      if (answer.status === 503) refused = answer;
    }
  });
  await until('many are refused', () => statuses.filter((status) => status === 503).length > 300);
  expect(statuses.filter((status) => status === 200).length).toBeGreaterThan(10);
  expect(refused).toMatchObject({ status: 503, body: { code: 'overloaded' } });
  expect(refused?.headers.get('retry-after')).toBe('1');
  const askedAtMs = performance.now();
  expect((await send(url, 'GET', '/livez')).status).toBe(200);
  expect(performance.now() - askedAtMs).toBeLessThan(5000);
  expect(server.refused()).toBeGreaterThan(300);
  sending = false;
  await Promise.all(clients);
  expect((await send(url, 'POST', UPDATES, { accountId: 'a', amount: 1 })).status).toBe(200);
});

it('reports its health a hundred times a second at any load, and refuses the rest of a flood of such questions', async () => {
  const server = await startServer(
    (_request, response) => {
      for (const end = performance.now() + 2; performance.now() < end; );
      response.end('{}');
    },
    '127.0.0.1',
    0,
  );
  onCleanUp(() => server.stop());
  const url = `http://127.0.0.1:${server.port}`;
  let sending = true;
  const statuses: number[] = [];
  const clients = Array.from({ length: 100 }, async () => {
    while (sending) statuses.push((await send(url, 'GET', '/livez')).status);
  });
  await until('many are refused', () => statuses.filter((status) => status === 503).length > 300);
  sending = false;
  await Promise.all(clients);
  const told = statuses.filter((status) => status === 200).length;
  expect(told).toBeGreaterThan(50);
  expect(server.refused()).toBeGreaterThan(300);
});

it('asks the database and the parts of the process a few times a second at most, however many want to know', async () => {
  let [readings, looks] = [0, 0];
  const accessLog = startAccessLog(createLogger('test', 'silent'));
  onCleanUp(() => accessLog.stop());
  const options = {
    ...{ healthPool: database.pool, schemaVersion: 1, relayState: () => ({}), laneCounts: () => ({}) },
    async partProblems() {
      looks += 1;
      return [];
    },
    isStopping: () => false,
    async readMetrics() {
      readings += 1;
      return { contentType: 'text/plain', text: 'metrics' };
    },
    ...{ onRequestEnd() {}, accessLog, tracing: undefined },
  };
  const server = await startServer(createHealthApp(options), '127.0.0.1', 0);
  onCleanUp(() => server.stop());
  const startedAtMs = performance.now();
  for (let round = 0; round < 10; round += 1) {
    const paths = Array.from({ length: 50 }, () => ['/metrics', '/readyz', '/livez']).flat();
    await Promise.all(paths.map((path) => fetch(`http://127.0.0.1:${server.port}${path}`).then((one) => one.text())));
  }
  const seconds = Math.ceil((performance.now() - startedAtMs) / 1000) + 1; // as many at once as in a second
  expect(readings).toBeLessThanOrEqual(5 * seconds);
  expect(looks).toBeLessThanOrEqual(10 * seconds);
  expect(readings).toBeGreaterThan(0);
  expect(looks).toBeGreaterThan(0);
});

needing('Linux', process.platform === 'linux').it(
  'lets new connections in by the dozen while a turn of the event loop is long',
  async () => {
    const server = await startServer((_request, response) => response.end('{}'), '127.0.0.1', 0);
    onCleanUp(() => server.stop());
    const clients = 300;
    let answered = 0;
    for (let index = 0; index < clients; index += 1) {
      const socket = connect({ host: '127.0.0.1', port: server.port }, () =>
        socket.write('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n'),
      );
      onCleanUp(async () => socket.destroy());
      socket.once('data', () => {
        answered += 1;
      });
    }
    let turns = 0;
    while (answered < clients && turns < clients) {
      turns += 1;
      for (const end = performance.now() + 10; performance.now() < end; );
      await turn();
    }
    expect(answered).toBe(clients);
    expect(turns).toBeLessThan(clients / 4); // with one listening socket each takes a turn
  },
);

it('says that the port is taken, though sockets of one service share it', async () => {
  const serve: RequestListener = (_request, response) => response.end('{}');
  const server = await startServer(serve, '127.0.0.1', 0);
  onCleanUp(() => server.stop());
  await expect(startServer(serve, '127.0.0.1', server.port)).rejects.toMatchObject({ code: 'EADDRINUSE' });
  await server.stop();
  const next = await startServer(serve, '127.0.0.1', server.port);
  await next.stop();
});
