// Bodies that nobody reads: the client gets its answer, and what it keeps sending takes nothing
// from the others.
import type { RequestListener } from 'node:http';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sendProblem } from '../../src/api/http/problems.ts';
import { startServer } from '../../src/api/http/server.ts';
import {
  cleanUp,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  onCleanUp,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { bytesOf, closed, JSON_TYPE, type Message, open, parseAnswers, post } from '../support/http-client.ts';

const UPDATES = '/v1/balance-updates';
const BULK = `${UPDATES}/bulk`;
const PIECE = Buffer.alloc(65_536, ' ');
const CHUNK = Buffer.concat([Buffer.from('10000\r\n'), PIECE, Buffer.from('\r\n')]);
/** What is read after an answer, and what two kernels hold of a connection. */
const TAKEN_BYTES_MAX = 4_194_304 + 16_777_216;
const MORE_THAN_TAKEN = 4 * TAKEN_BYTES_MAX;

let database: Database;
let url: string;
let guardedUrl: string;
let refusingUrl: string;
const authorization: Record<'reader' | 'writer' | 'spent', [string, string]> = {
  reader: ['Authorization', ''],
  writer: ['Authorization', ''],
  spent: ['Authorization', ''],
};

beforeAll(async () => {
  database = await createDatabase();
  ({ url } = await startApiHere(database, createBroker(), { RELAY: 'off' }));
  ({ url: guardedUrl } = await startApiHere(database, createBroker(), {
    RELAY: 'off',
    AUTH: 'required',
    RATE_LIMIT_WINDOW_S: '60',
  }));
  for (const actor of ['reader', 'writer', 'spent'] as const) {
    const scopes = actor === 'reader' ? (['read'] as const) : (['write'] as const);
    const { headers } = await createApiKey(database, actor, scopes, actor === 'spent' ? 1 : undefined);
    authorization[actor][1] = headers.authorization;
  }
  await exchangeOne(guardedUrl, post(UPDATES, '{}', authorization.spent));
  refusingUrl = await startOne((_request, response) => sendProblem(response, 'overloaded'));
});
afterAll(cleanUp);

async function startOne(listener: RequestListener): Promise<string> {
  const server = await startServer(listener, '127.0.0.1', 0);
  onCleanUp(() => server.stop());
  return `http://127.0.0.1:${server.port}`;
}

async function exchangeOne(base: string, message: Message): Promise<void> {
  const { socket } = open(base);
  socket.write(bytesOf(message));
  await closed(socket);
}

/** Sends for as long as it can. @returns what the other side took, and the answers. */
async function sendWithoutEnd(base: string, head: string, piece: Buffer) {
  const { socket, received } = open(base);
  const startedAtMs = performance.now();
  const taken = () => socket.bytesWritten - socket.writableLength;
  const more = () => {
    while (socket.writable && taken() < MORE_THAN_TAKEN && socket.write(piece));
    if (taken() >= MORE_THAN_TAKEN) socket.destroy();
  };
  socket.on('drain', more);
  socket.write(head);
  more();
  await closed(socket);
  return { taken: taken(), tookMs: performance.now() - startedAtMs, answers: parseAnswers(received()) };
}

const head = (first: string, ...headers: [string, string][]) =>
  `${first} HTTP/1.1\r\nHost: localhost\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')}`;
const ENDLESS: [name: string, header: string, piece: Buffer][] = [
  ['of 9 GB', 'Content-Length: 9000000000\r\n\r\n', PIECE],
  ['without end', 'Transfer-Encoding: chunked\r\n\r\n', CHUNK],
];
const OPEN_PATHS = ['/livez', '/readyz', '/metrics', '/openapi.json', '/docs', '/docs/swagger-ui.css', '/console'];
const answered: [status: number, what: string, base: () => string, head: () => string][] = [
  [401, 'a call without a key', () => guardedUrl, () => head(`POST ${BULK}`, JSON_TYPE)],
  [403, 'a call with another scope', () => guardedUrl, () => head(`POST ${BULK}`, JSON_TYPE, authorization.reader)],
  [404, 'no call', () => url, () => head('POST /v1/nothing', JSON_TYPE)],
  [405, 'another method', () => url, () => head(`PUT ${BULK}`, JSON_TYPE)],
  [413, 'an update', () => url, () => head(`POST ${UPDATES}`, JSON_TYPE)],
  [429, 'a call above the limit', () => guardedUrl, () => head(`POST ${UPDATES}`, JSON_TYPE, authorization.spent)],
  [503, 'a call under overload', () => refusingUrl, () => head(`POST ${UPDATES}`, JSON_TYPE)],
  ...OPEN_PATHS.map((path): (typeof answered)[0] => [200, `GET ${path}`, () => url, () => head(`GET ${path}`)]),
];

describe.each(ENDLESS)('a body %s', (_, header, piece) => {
  it.each(answered)('is read no further after %d to %s', async (status, _what, base, first) => {
    const { taken, tookMs, answers } = await sendWithoutEnd(base(), first() + header, piece);
    expect(answers).toMatchObject([{ status }]);
    expect(answers[0]?.headers.get('connection')).toBe('close');
    expect(taken).toBeLessThan(TAKEN_BYTES_MAX);
    expect(tookMs).toBeLessThan(20_000);
  });
});

it('is read no further after 415, where its length is said and right', async () => {
  const first = head(`POST ${BULK}`, ['Content-Type', 'text/plain'], ['Content-Length', '2000000']);
  const { socket, received } = open(url);
  socket.write(`${first}\r\n`); // and nothing of the body
  await closed(socket);
  expect(parseAnswers(received())).toMatchObject([{ status: 415, body: { code: 'unsupported_media_type' } }]);
});

it('leaves the answer to a client that sends all of its body before it reads anything', async () => {
  const { socket, received } = open(guardedUrl);
  socket.pause();
  const body = Buffer.alloc(2_000_000, ' ');
  await new Promise((resolve) => socket.write(bytesOf(post(BULK, body)), resolve));
  socket.resume();
  await closed(socket);
  expect(parseAnswers(received())).toMatchObject([{ status: 401, body: { code: 'unauthorized' } }]);
});

it('closes the connection soon, also where the client sends nothing more and keeps its half open', async () => {
  const socket = connect({ host: '127.0.0.1', port: Number(new URL(url).port), allowHalfOpen: true });
  let received = '';
  socket.on('data', (bytes) => (received += bytes));
  socket.on('error', () => {}); // the server gives it up
  const startedAtMs = performance.now();
  socket.write(`${head('POST /v1/nothing')}Content-Length: 1000000\r\n\r\n`);
  await until('the server has ended its half', () => socket.readableEnded);
  const knocking = setInterval(() => socket.write(' '), 50); // only then it shows that the server is gone
  await closed(socket);
  clearInterval(knocking);
  expect(performance.now() - startedAtMs).toBeLessThan(10_000);
  expect(received).toContain('HTTP/1.1 404');
});

it('takes no request after a body that it did not read', async () => {
  const { socket, received } = open(url);
  const body = Buffer.alloc(100_000, ' ');
  const refused = bytesOf({ method: 'POST', path: '/v1/nothing', headers: [['Connection', 'keep-alive']], body });
  socket.write(Buffer.concat([refused, bytesOf({ path: '/livez' })]));
  await closed(socket);
  expect(parseAnswers(received())).toMatchObject([{ status: 404 }]);
});

it('reads a short body, and continues with the connection', async () => {
  const { socket, received } = open(url);
  const message: Message = { ...post('/v1/nothing', ' '.repeat(16_000), ['Connection', 'keep-alive']) };
  socket.write(bytesOf(message));
  await until('it is answered', () => received().includes('not_found'));
  socket.write(bytesOf({ path: '/livez' }));
  await closed(socket);
  expect(parseAnswers(received()).map(({ status }) => status)).toEqual([404, 200]);
});

describe('a client that waits to be asked for its body', () => {
  const expecting = (base: string, first: string) => {
    const connection = open(base);
    connection.socket.write(`${first}Content-Length: 40\r\nExpect: 100-continue\r\n\r\n`);
    return connection;
  };

  it('is refused without being asked', async () => {
    const { socket, received } = expecting(guardedUrl, head(`POST ${UPDATES}`, JSON_TYPE));
    await closed(socket);
    expect(received().toString()).not.toContain('100 Continue');
    expect(parseAnswers(received())).toMatchObject([{ status: 401 }]);
  });

  it('is asked where it is taken', async () => {
    const first = head(`POST ${UPDATES}`, JSON_TYPE, authorization.writer, ['Connection', 'close']);
    const { socket, received } = expecting(guardedUrl, first);
    await until('it is asked', () => received().toString().startsWith('HTTP/1.1 100 Continue\r\n\r\n'));
    socket.write('{"accountId":"nobody","amount":1}'.padEnd(40));
    await closed(socket);
    expect(parseAnswers(received())).toMatchObject([{ status: 404, body: { code: 'account_not_found' } }]);
  });
});

it('is not read by the worker either', async () => {
  const worker = await startWorkerHere(database, createBroker(), { HEALTH_PORT: '0', HEALTH_HOST: '127.0.0.1' });
  const base = `http://127.0.0.1:${worker.healthPort}`;
  const { taken } = await sendWithoutEnd(base, `${head('GET /livez')}Content-Length: 9000000000\r\n\r\n`, PIECE);
  expect(taken).toBeLessThan(TAKEN_BYTES_MAX);
});
