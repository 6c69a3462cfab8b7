// Clients that are slow, greedy or gone: each is bounded in time and size, and what it did not send
// whole has no effect.
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createBodyReader } from '../../src/api/http/json-body.ts';
import { createPieces } from '../../src/api/http/pieces.ts';
import { type HttpServer, startServer } from '../../src/api/http/server.ts';
import { residentBytes } from '../bench/cpu.ts';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  environmentOf,
  onCleanUp,
  send,
  spawnProcess,
  startApiHere,
  until,
} from '../support/harness.ts';
import {
  bytesOf,
  closed,
  JSON_TYPE,
  lockAccount,
  open,
  parseAnswers,
  post,
  waitingBackends,
} from '../support/http-client.ts';

const UPDATES = '/v1/balance-updates';
const KEEP_ALIVE: [string, string] = ['Connection', 'keep-alive'];
const MEGABYTE = 1_048_576;
/** Short, so that the tests need not wait for the real ones. */
const TIMEOUTS = { headersMs: 300, requestMs: 600, checkMs: 50, unreadMs: 500 };
const TIMEOUT_SLACK_MS = 8000;

let database: Database;
let url: string;

beforeAll(async () => {
  database = await createDatabase();
  ({ url } = await startApiHere(database, createBroker(), { RELAY: 'off' }));
});
afterAll(cleanUp);

const credit = (accountId: string) => post(UPDATES, { accountId, amount: 1 }, KEEP_ALIVE);

async function versionOf(id: string): Promise<number> {
  return (await send(url, 'GET', `/v1/accounts/${id}`)).body.version;
}

/** A server with short timeouts that answers so many bytes to everything, having read it. */
async function startStrictServer(
  answerBytes = 2,
  timeouts = TIMEOUTS,
): Promise<{ url: string; server: HttpServer; answered(): number }> {
  const answer = `"${'x'.repeat(answerBytes - 2)}"`;
  let answered = 0;
  const server = await startServer(
    (request, response) => {
      request.resume().on('end', () => {
        answered += 1;
        response.setHeader('content-length', answer.length);
        response.end(answer);
      });
    },
    '127.0.0.1',
    0,
    timeouts,
  );
  onCleanUp(() => server.stop());
  return { url: `http://127.0.0.1:${server.port}`, server, answered: () => answered };
}

/** Byte by byte, for as long as the server listens. */
async function dribble(socket: Socket, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length && socket.writable; at += 1) {
    socket.write(bytes.subarray(at, at + 1));
    await delay(20);
  }
}

it.each([
  ['sends nothing', '', Buffer.alloc(0)],
  ['sends its headers byte by byte', '', Buffer.from(`GET /livez HTTP/1.1\r\nX: ${'x'.repeat(1000)}`)],
  [
    'sends its body byte by byte',
    `POST ${UPDATES} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n`,
    Buffer.alloc(1000, ' '),
  ],
  [
    'sends its chunks byte by byte',
    `POST ${UPDATES} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n`,
    Buffer.from('1\r\n \r\n'.repeat(200)),
  ],
])('closes the connection of a client that %s, in time and with a reason', async (_, first, rest) => {
  const strict = await startStrictServer();
  const startedAtMs = performance.now();
  const { socket, received } = open(strict.url);
  socket.write(first);
  void dribble(socket, rest);
  await closed(socket);
  expect(performance.now() - startedAtMs).toBeLessThan(TIMEOUTS.requestMs + TIMEOUT_SLACK_MS);
  expect(parseAnswers(received())).toMatchObject([{ status: 408, body: { code: 'request_timeout' } }]);
  expect(strict.answered()).toBe(0);
});

it('closes the connection of a client that does not read its answers, and starts no more of its requests', async () => {
  const strict = await startStrictServer(MEGABYTE);
  const { socket } = open(strict.url);
  socket.pause();
  socket.write(Buffer.concat(Array.from({ length: 50 }, () => bytesOf(credit('nobody')))));
  const closes = new Promise((resolve) => socket.once('close', resolve));
  const startedAtMs = performance.now();
  // A paused socket does not see its end: what it has to send fails once the server is gone.
  const knocking = setInterval(() => socket.write('\r\n'), 50);
  await closes;
  clearInterval(knocking);
  expect(performance.now() - startedAtMs).toBeLessThan(TIMEOUTS.unreadMs + TIMEOUT_SLACK_MS);
  // What the kernel's buffers hold was sent; of the rest, one answer waited.
  expect(strict.answered()).toBeLessThan(20);
});

it('does so in twice the time at most where a part of an answer went out', async () => {
  const unreadMs = 1000;
  const strict = await startStrictServer(MEGABYTE, { ...TIMEOUTS, unreadMs });
  const { socket } = open(strict.url);
  socket.pause();
  const startedAtMs = performance.now();
  socket.write(Buffer.concat(Array.from({ length: 50 }, () => bytesOf(credit('nobody')))));
  await delay(2 * unreadMs + 100); // a knock before would be a sign of life
  const closes = new Promise((resolve) => socket.once('close', resolve));
  const knocking = setInterval(() => socket.write('\r\n'), 50);
  await closes;
  clearInterval(knocking);
  expect(performance.now() - startedAtMs).toBeLessThan(2 * unreadMs + TIMEOUT_SLACK_MS);
});

it('does not give up a client whose answer takes long', async () => {
  const server = await startServer(
    (_request, response) => {
      void delay(4 * TIMEOUTS.unreadMs).then(() => response.end('{}'));
    },
    '127.0.0.1',
    0,
    TIMEOUTS,
  );
  onCleanUp(() => server.stop());
  expect((await send(`http://127.0.0.1:${server.port}`, 'GET', '/')).status).toBe(200);
});

it.each([
  ['its announced length', ['Content-Length', '1000'], (body: string) => body],
  ['its last chunk', ['Transfer-Encoding', 'chunked'], (body: string) => `${body.length.toString(16)}\r\n${body}\r\n`],
] as [string, [string, string], (body: string) => string][])(
  'applies nothing of an upload that is aborted before %s',
  async (_, header, encode) => {
    const id = `aborted-${header[0]}`;
    await createAccount(url, id);
    const head = bytesOf({ method: 'POST', path: UPDATES, headers: [JSON_TYPE, header] });
    for (const abort of ['end', 'destroy', 'resetAndDestroy'] as const) {
      const { socket } = open(url);
      await new Promise<void>((resolve) => {
        socket.write(Buffer.concat([head, Buffer.from(encode(JSON.stringify({ accountId: id, amount: 1 })))]), () =>
          resolve(),
        );
      });
      socket[abort]();
      await closed(socket);
    }
    // A whole one after them: by then the server has seen all of it.
    expect((await send(url, 'POST', UPDATES, { accountId: id, amount: 5 })).body).toMatchObject({
      balance: 5,
      version: 1,
    });
    expect(await versionOf(id)).toBe(1);
  },
);

it('applies an update that was sent whole, though its client is gone before the answer', async () => {
  await createAccount(url, 'gone');
  const lock = await lockAccount(database, 'gone');
  const { socket } = open(url);
  socket.write(bytesOf(credit('gone')));
  await until('it waits for the row', async () => (await waitingBackends(database)).length === 1);
  socket.resetAndDestroy();
  await closed(socket);
  await lock.release();
  await until('it is applied', async () => (await versionOf('gone')) === 1);
});

it('answers thousands of requests on one connection in their order, and applies what it answered 200', async () => {
  await createAccount(url, 'pipelined');
  const [count, ahead] = [5000, 50];
  const { socket, received } = open(url);
  const one = bytesOf(credit('pipelined'));
  const answered = () => received().toString().split('HTTP/1.1 ').length - 1;
  for (let sent = 0; sent < count; sent += ahead) {
    await until('half of what is in flight is answered', () => answered() >= sent - ahead / 2);
    socket.write(Buffer.concat(Array.from({ length: ahead }, () => one)));
  }
  await until('all are answered', () => answered() === count);
  socket.destroy();
  const answers = parseAnswers(received());
  const applied = answers.filter(({ status }) => status === 200);
  expect(applied.length).toBeGreaterThan(100);
  expect(applied.map(({ body }) => body.version)).toEqual(applied.map((_, index) => index + 1));
  const refused = answers.filter(({ status }) => status !== 200);
  for (const answer of refused) expect(answer).toMatchObject({ status: 503, body: { code: 'overloaded' } });
  expect(await versionOf('pipelined')).toBe(applied.length);
});

it('answers a hundred requests that are sent ahead, refuses the next one and takes none after it', async () => {
  await createAccount(url, 'ahead');
  const { socket, received } = open(url);
  socket.write(Buffer.concat(Array.from({ length: 1000 }, () => bytesOf(credit('ahead')))));
  await closed(socket);
  const answers = parseAnswers(received());
  expect(answers.slice(0, -1).map(({ body }) => body.version)).toEqual(
    Array.from({ length: 100 }, (_, index) => index + 1),
  );
  expect(answers.at(-1)).toMatchObject({ status: 503, body: { code: 'overloaded' } });
  expect(answers.at(-1)?.headers.get('connection')).toBe('close');
  expect(await versionOf('ahead')).toBe(100);
});

it('refuses bodies that come in pieces when too much of that kind is in flight, and takes whole ones', async () => {
  const { readJsonBody } = createBodyReader(createPieces(), () => '', 10_000);
  const server = await startServer(
    async (request, response) => {
      await readJsonBody(request, 8000).then(
        () => response.writeHead(200),
        (problem) => response.writeHead(problem.code === 'overloaded' ? 503 : 400),
      );
      response.end();
    },
    '127.0.0.1',
    0,
  );
  onCleanUp(() => server.stop());
  const own = `http://127.0.0.1:${server.port}`;
  const begun = (bytes: number) => {
    const connection = open(own);
    const head = `POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 7000\r\n\r\n`;
    connection.socket.write(head + ' '.repeat(bytes));
    return connection;
  };
  const whole = () => send(own, 'POST', '/', {}).then(({ status }) => status);
  const slow = [begun(6000)];
  await until('the second is refused', async () => {
    const other = begun(6000);
    slow.push(other);
    await delay(50);
    return other.received().toString().startsWith('HTTP/1.1 503');
  });
  expect(await whole()).toBe(200);
  for (const { socket } of slow) socket.destroy();
  await until('there is room again', async () => {
    const other = begun(6000);
    await delay(50);
    other.socket.write(`${' '.repeat(998)}{}`);
    await until('it is answered', () => other.received().length > 0);
    other.socket.destroy();
    return other.received().toString().startsWith('HTTP/1.1 200');
  });
});

/** What a process of its own takes for many connections of one kind. */
it.each([
  ['idle', 1000, ''],
  ['in the middle of their headers', 1000, `GET /livez HTTP/1.1\r\nX: ${'x'.repeat(15_000)}`],
  [
    'in the middle of a bulk request',
    200,
    `POST ${UPDATES}/bulk HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n${' '.repeat(1_000_000)}`,
  ],
])('stays below 300 MB with connections that are %s', async (_, connections, text) => {
  const spawned = await spawnProcess(
    'api',
    environmentOf(database, createBroker(), { RELAY: 'off', LOG_LEVEL: 'info' }),
  );
  const own = spawned.url();
  const sockets = Array.from({ length: connections }, () => open(own).socket);
  onCleanUp(async () => {
    for (const socket of sockets) socket.destroy();
  });
  const bytes = Buffer.from(text);
  await Promise.all(sockets.map((socket) => new Promise<void>((resolve) => socket.write(bytes, () => resolve()))));
  expect((await send(own, 'GET', '/livez')).status).toBe(200);
  const resident = residentBytes(spawned.child.pid as number);
  expect(resident ?? 0).toBeLessThan(300 * MEGABYTE); // undefined where there is no /proc
  await spawned.kill();
});

it('is not held up at a stop by a load balancer that keeps asking whether it is ready', async () => {
  const strict = await startStrictServer();
  let asked = 0;
  const asking = setInterval(() => {
    fetch(`${strict.url}/readyz`).then(
      () => (asked += 1),
      () => {},
    );
  }, 50);
  onCleanUp(async () => clearInterval(asking));
  await until('it has asked', () => asked > 2);
  const startedAtMs = performance.now();
  await strict.server.stop();
  expect(performance.now() - startedAtMs).toBeLessThan(3000); // requests would be waited for as long as they come, 8 s at most
});
