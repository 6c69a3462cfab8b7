// HTTP as a hostile client sends it: paths, headers and bodies byte by byte, whatever a
// well-behaved client would repair or refuse to send. Every wait is bounded: a hang is a failure.
import { connect, type Socket } from 'node:net';
import { expect } from 'vitest';
import type { Answer, Database } from './harness.ts';

const HANG_AFTER_MS = 60_000;

export interface Message {
  method?: string;
  path?: string;
  /**
   * Name and value; the same name may come twice. Host, Content-Length and Connection are added
   * where missing.
   */
  headers?: [string, string][];
  body?: string | Buffer;
}

export const JSON_TYPE: [string, string] = ['Content-Type', 'application/json'];

/** A message that posts this body as JSON. */
export function post(path: string, body: string | Buffer | object, ...headers: [string, string][]): Message {
  const isBytes = typeof body === 'string' || Buffer.isBuffer(body);
  return { method: 'POST', path, headers: [JSON_TYPE, ...headers], body: isBytes ? body : JSON.stringify(body) };
}

export function bytesOf({ method = 'GET', path = '/', headers = [], body }: Message): Buffer {
  const given = new Set(headers.map(([name]) => name.toLowerCase()));
  const all: [string, string][] = [...headers];
  if (!given.has('host')) all.unshift(['Host', 'localhost']);
  if (!given.has('connection')) all.push(['Connection', 'close']);
  if (body !== undefined && !given.has('content-length') && !given.has('transfer-encoding')) {
    all.push(['Content-Length', String(Buffer.byteLength(body))]);
  }
  const head = `${method} ${path} HTTP/1.1\r\n${all.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`;
  return Buffer.concat([Buffer.from(head), Buffer.from(body ?? '')]);
}

/** Sends one message and reads its one answer. */
export async function deliver(url: string, message: Message): Promise<Answer> {
  const answers = await exchange(url, bytesOf(message));
  if (answers.length !== 1) throw new Error(`${answers.length} answers instead of one`);
  return answers[0] as Answer;
}

/** Sends bytes and reads answers until the server closes the connection. */
export async function exchange(url: string, ...parts: (string | Buffer)[]): Promise<Answer[]> {
  const { socket, received } = open(url);
  for (const part of parts) socket.write(part);
  await closed(socket);
  return parseAnswers(received());
}

/** A connection that the test writes to as it likes. `received` is what came back so far. */
export function open(url: string): { socket: Socket; received: () => Buffer } {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), noDelay: true });
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  socket.on('error', () => {}); // a reset while we still send: what had been received counts
  return { socket, received: () => Buffer.concat(chunks) };
}

/** Waits until the server has closed the connection. */
export async function closed(socket: Socket): Promise<void> {
  if (socket.closed) return;
  const hang = setTimeout(() => socket.destroy(new Error('no answer')), HANG_AFTER_MS);
  let failure: Error | undefined;
  socket.on('error', (error) => {
    if (error.message === 'no answer') failure = error;
  });
  await new Promise((resolve) => socket.once('close', resolve));
  clearTimeout(hang);
  if (failure) throw new Error(`the server left the connection open for ${HANG_AFTER_MS} ms`);
}

/**
 * The body of an answer with Content-Length is parsed; a stream, which ends the connection, is left
 * as text.
 */
export function parseAnswers(received: Buffer): Answer[] {
  const answers: Answer[] = [];
  for (let rest = received; rest.length > 0; ) {
    const headEnd = rest.indexOf('\r\n\r\n');
    if (headEnd < 0) throw new Error(`half an answer: ${rest.toString()}`);
    const [statusLine = '', ...lines] = rest.subarray(0, headEnd).toString().split('\r\n');
    const headers = new Headers(lines.map((line) => line.split(/: ?(.*)/s, 2) as [string, string]));
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(statusLine)?.[1]);
    if (headers.get('transfer-encoding') === 'chunked') {
      const chunks = rest.subarray(headEnd + 4).toString();
      if (!/(^|\r\n)0\r\n\r\n$/.test(chunks)) throw new Error(`half a stream: ${chunks}`);
      return [...answers, { status, headers, body: chunks }];
    }
    const declared = Number(headers.get('content-length') ?? 0);
    const body = rest.subarray(headEnd + 4, headEnd + 4 + declared);
    rest = rest.subarray(headEnd + 4 + body.length);
    if (status === 100) continue;
    // The answer to HEAD declares a body and has none.
    if (body.length > 0 && body.length < declared) throw new Error(`half a body: ${body.toString()}`);
    answers.push({ status, headers, body: body.length === 0 ? undefined : parsed(headers, body.toString()) });
  }
  return answers;
}

/** A page, a script or metrics stay text. */
function parsed(headers: Headers, text: string) {
  return headers.get('content-type')?.endsWith('json') ? JSON.parse(text) : text;
}

const TABLES = ['account', 'hold', 'idempotency_key', 'outbox', 'ledger'];

/** Everything the API may change, as one text: equal texts, nothing changed. */
export async function stateOf({ pool }: Database, tables = TABLES): Promise<string> {
  const table = (name: string) => `(SELECT coalesce(json_agg(t ORDER BY t::text), '[]') FROM ${name} AS t)`;
  const { rows } = await pool.query(`SELECT concat_ws(E'\\n', ${tables.map(table).join(', ')}) AS state`);
  return rows[0].state;
}

/**
 * Claims that the message gets 400 invalid_request with a list that names this place, and changes
 * nothing.
 */
export async function expectInvalid(url: string, database: Database, message: Message, where: string): Promise<void> {
  const before = await stateOf(database);
  const { status, headers, body } = await deliver(url, message);
  expect(body).toMatchObject({ code: 'invalid_request', status: 400 });
  expect(status).toBe(400);
  expect(headers.get('content-type')).toBe('application/problem+json');
  expect(body.errors.length).toBeLessThanOrEqual(20);
  expect(body.errors.map((error: { where: string }) => error.where)).toContain(where);
  for (const { what } of body.errors) expect(what.length).toBeGreaterThan(5);
  expect(await stateOf(database)).toBe(before);
}

/** A session that holds the account's row until it is released. */
export async function lockAccount({ pool }: Database, id: string): Promise<{ release: () => Promise<void> }> {
  const client = await pool.connect();
  await client.query('BEGIN');
  await client.query('SELECT FROM account WHERE account_id = $1 FOR UPDATE', [id]);
  return {
    async release() {
      await client.query('COMMIT');
      client.release();
    },
  };
}

/** Backends of the API that wait for a row lock at this moment. */
export async function waitingBackends({ pool }: Database): Promise<number[]> {
  const { rows } = await pool.query(
    `SELECT pid FROM pg_stat_activity
     WHERE datname = current_database() AND application_name LIKE 'highload-balance api%' AND wait_event_type = 'Lock'`,
  );
  return rows.map((row) => row.pid);
}
