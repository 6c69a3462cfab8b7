// Paths, methods, queries and what is hardly HTTP any more: each gets its problem document, and
// changes nothing.
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  environmentOf,
  send,
  spawnProcess,
  startApiHere,
  until,
} from '../support/harness.ts';
import {
  bytesOf,
  closed,
  deliver,
  exchange,
  expectInvalid,
  JSON_TYPE,
  open,
  parseAnswers,
  post,
  stateOf,
} from '../support/http-client.ts';

const UPDATES = '/v1/balance-updates';
const GOOD = '{"accountId":"alice","amount":1}';

let database: Database;
let url: string;

beforeAll(async () => {
  database = await createDatabase();
  ({ url } = await startApiHere(database, createBroker(), { RELAY: 'off' }));
  await createAccount(url, 'alice', 100);
});
afterAll(cleanUp);

describe('a path', () => {
  it.each([
    '/v1',
    '/v1/accounts/',
    '/v1/accounts/alice/',
    '/v1/accounts/alice/entries/',
    '/v1/balance-updates/',
    '/V1/balance-updates',
    '/v1/Balance-Updates',
    '/v1/ACCOUNTS/alice',
    '//v1/accounts/alice',
    '/v1//accounts/alice',
    '/v1/accounts/alice/../alice',
    '/v1/accounts/alice/balances',
    '/v1%2faccounts%2falice',
    '/v1/accounts;v=1',
    '/v2/accounts/alice',
    '/favicon.ico',
    '/v1/accounts/%',
    '/v1/accounts/%zz',
    '/v1/accounts/%ff',
    '/v1/accounts/%c0%af',
    '/v1/accounts/%ed%a0%80/entries',
    'http://[/v1/accounts/alice',
  ])('is not found when it is %s', async (path) => {
    const before = await stateOf(database);
    for (const message of [{ path }, { ...post(path, GOOD), method: 'POST' }, { method: 'DELETE', path }]) {
      const answer = await deliver(url, message);
      expect(answer).toMatchObject({ status: 404, body: { code: 'not_found' } });
      expect(answer.body.detail).toMatch(/^GET \/openapi.json lists every path|percent-encoded/);
      expect(answer.headers.get('content-type')).toBe('application/problem+json');
    }
    expect(await stateOf(database)).toBe(before);
  });

  it.each([
    ['a space', '%20'],
    ['a padded id', 'alice%20'],
    ['an encoded slash', 'a%2Fb'],
    ['NUL', '%00'],
    ['an id ended by NUL', 'alice%00'],
    ['an id ended by a newline', 'alice%0A'],
    ['an emoji', '%F0%9F%98%80'],
    ['65 characters', 'a'.repeat(65)],
    ['an id encoded twice', '%2561lice'],
    ['a plus sign', 'a+b'],
    ['an at sign', 'a@b'],
  ])('is refused when the account in it is %s', async (_, id) => {
    const path = `/v1/accounts/${id}`;
    await expectInvalid(url, database, { path }, 'path id');
    await expectInvalid(url, database, { path: `${path}/entries` }, 'path id');
    await expectInvalid(url, database, { ...post(path, { status: 'frozen' }), method: 'PATCH' }, 'path id');
  });

  it('means the account that it decodes to', async () => {
    for (const path of [
      '/v1/accounts/%61lic%65',
      'http://elsewhere.example/v1/accounts/alice',
      '/v1/accounts/alice?x#y',
    ]) {
      expect(await deliver(url, { path })).toMatchObject({ status: 200, body: { id: 'alice' } });
    }
  });
});

describe('a method', () => {
  const allowed: [string, string][] = [
    [UPDATES, 'POST'],
    ['/v1/accounts', 'GET, HEAD, POST'],
    ['/v1/accounts/alice', 'GET, HEAD, PATCH'],
    ['/v1/accounts/alice/entries', 'GET, HEAD'],
    ['/v1/accounts/alice/entries/export', 'GET, HEAD'],
    ['/v1/accounts/alice/balance', 'GET, HEAD'],
    ['/v1/accounts/alice/chain-head', 'GET, HEAD'],
    ['/openapi.json', 'GET, HEAD'],
    ['/docs', 'GET, HEAD'],
    ['/livez', 'GET, HEAD'],
    ['/readyz', 'GET, HEAD'],
  ];

  it.each(allowed)('of %s is %s, every other is refused with this list', async (path, allow) => {
    const before = await stateOf(database);
    const methods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND', 'QUERY'];
    for (const method of methods.filter((name) => !allow.split(', ').includes(name))) {
      const answer = await deliver(url, { ...post(path, GOOD), method });
      expect(answer).toMatchObject({ status: 405, body: { code: 'method_not_allowed' } });
      expect(answer.headers.get('allow')).toBe(allow);
    }
    expect(await stateOf(database)).toBe(before);
  });

  it('HEAD answers like GET, without the body', async () => {
    for (const path of ['/v1/accounts/alice', '/v1/accounts/alice/entries', '/v1/accounts/nobody', '/livez']) {
      const [get, head] = [await deliver(url, { path }), await deliver(url, { method: 'HEAD', path })];
      expect(head.status).toBe(get.status);
      expect(head.body).toBe(undefined);
      for (const name of ['content-type', 'content-length']) expect(head.headers.get(name)).toBe(get.headers.get(name));
    }
  });

  it.each(['get', 'FOO', 'POST\0'])('that HTTP does not know (%j) is refused', async (method) => {
    expect(await deliver(url, { method, path: '/livez' })).toMatchObject({
      status: 400,
      body: { code: 'invalid_request' },
    });
  });
});

describe('a query of entries', () => {
  const entries = '/v1/accounts/alice/entries';

  it.each([
    '0',
    '-1',
    '1001',
    '99999999999999999999',
    '1.5',
    '1e2',
    '',
    '%205',
    '+5',
    '05',
    '0x10',
    'ten',
    '%D9%A5',
    '5&limit=5',
  ])('is refused when limit is %s', (value) =>
    expectInvalid(url, database, { path: `${entries}?limit=${value}` }, 'query limit'),
  );

  it.each(['0', '-1', '9007199254740992', '1.0', '', 'null', 'alice:1', '5&cursor=6'])(
    'is refused when cursor is %s',
    (value) => expectInvalid(url, database, { path: `${entries}?cursor=${value}` }, 'query cursor'),
  );

  it.each(['page', 'Limit', 'limit[]', '__proto__', 'constructor', ''])('is refused when it holds %j', (name) =>
    expectInvalid(url, database, { path: `${entries}?${name}=5` }, `query ${name}`.trim()),
  );

  it('is taken at its limits', async () => {
    for (const query of ['limit=1', 'limit=1000', 'cursor=1', 'cursor=9007199254740991', '%6Cimit=5', '']) {
      expect((await deliver(url, { path: `${entries}?${query}` })).status).toBe(200);
    }
  });

  it('does not count where there is nothing to ask for', async () => {
    const { body } = await deliver(url, post(`${UPDATES}?amount=1000&accountId=bob`, GOOD));
    expect(body).toMatchObject({ accountId: 'alice', amount: 1 });
  });
});

describe('what is hardly HTTP', () => {
  const head = `POST ${UPDATES} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n`;
  const length = `Content-Length: ${GOOD.length}\r\n`;
  const CHUNKS = `${GOOD.length.toString(16)}\r\n${GOOD}\r\n0\r\n\r\n`;

  it.each([
    ['binary rubbish', Buffer.from([0, 1, 2, 254, 255, 13, 10, 13, 10])],
    ['a TLS handshake', Buffer.from('16030100a5010000a10303', 'hex')],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['a version of its own', 'GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n'],
    ['a raw emoji in the path', bytesOf({ path: '/v1/accounts/😀' })],
    ['a space in the path', bytesOf({ path: '/v1/accounts/a b' })],
    ['no Host', `POST ${UPDATES} HTTP/1.1\r\nContent-Type: application/json\r\n${length}\r\n${GOOD}`],
    ['a header without a colon', `${head}${length}Oops\r\n\r\n${GOOD}`],
    ['a folded header', `${head}${length}A: b\r\n c\r\n\r\n${GOOD}`],
    ['NUL in a header', `${head}${length}Idempotency-Key: a\0b\r\n\r\n${GOOD}`],
    ['two lengths', `${head}${length}Content-Length: 3\r\n\r\n${GOOD}`],
    ['a length and chunks', `${head}${length}Transfer-Encoding: chunked\r\n\r\n${GOOD}`],
    ['a negative length', `${head}Content-Length: -5\r\n\r\n${GOOD}`],
    ['a length in hexadecimal', `${head}Content-Length: 0x20\r\n\r\n${GOOD}`],
    ['rubbish after the last chunk but one', `${head}Transfer-Encoding: chunked\r\n\r\n20\r\n${GOOD}\r\nzz\r\n`],
    ['two hosts', `${head}Host: evil.example\r\n${length}\r\n${GOOD}`],
    ['the same host twice', `${head}host: localhost\r\n${length}\r\n${GOOD}`],
    ['two hosts in one', `${head.replace('localhost', 'localhost, evil.example')}${length}\r\n${GOOD}`],
    ['a host with a user', `${head.replace('localhost', 'me@localhost')}${length}\r\n${GOOD}`],
    ['a host with a path', `${head.replace('localhost', 'localhost/a')}${length}\r\n${GOOD}`],
    ['a host with a fragment', `${head.replace('localhost', 'evil.example#localhost')}${length}\r\n${GOOD}`],
    ['the same length twice', `${head}${length}${length}\r\n${GOOD}`],
    ['a list of lengths', `${head}Content-Length: ${GOOD.length}, ${GOOD.length}\r\n\r\n${GOOD}`],
    ['a length with a sign', `${head}Content-Length: +${GOOD.length}\r\n\r\n${GOOD}`],
    ['a length that no number holds', `${head}Content-Length: 18446744073709551648\r\n\r\n${GOOD}`],
    ['a space before a colon', `${head}Content-Length : ${GOOD.length}\r\n\r\n${GOOD}`],
    ['gzip, in chunks', `${head}Transfer-Encoding: gzip, chunked\r\n\r\n${CHUNKS}`],
    ['two codings, a header each', `${head}Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n${CHUNKS}`],
    ['chunks in chunks', `${head}Transfer-Encoding: chunked, chunked\r\n\r\n${CHUNKS}`],
    ['a coding after chunks', `${head}Transfer-Encoding: chunked, gzip\r\n\r\n${CHUNKS}`],
    ['a coding of its own', `${head}Transfer-Encoding: xchunked\r\n\r\n${CHUNKS}`],
    ['the coding identity', `${head}Transfer-Encoding: identity\r\n${length}\r\n${GOOD}`],
    ['a folded coding', `${head}Transfer-Encoding:\r\n chunked\r\n\r\n${CHUNKS}`],
    ['chunks in HTTP/1.0', `${head.replace('1.1', '1.0')}Transfer-Encoding: chunked\r\n\r\n${CHUNKS}`],
    ['a size of a chunk in 0x', `${head}Transfer-Encoding: chunked\r\n\r\n0x${CHUNKS}`],
    ['chunks that end in LF', `${head}Transfer-Encoding: chunked\r\n\r\n${CHUNKS.replaceAll('\r\n', '\n')}`],
    ['an extension that ends in LF', `${head}Transfer-Encoding: chunked\r\n\r\n${CHUNKS.replace('\r\n', ';a\n')}`],
    ['lines that end in LF', `${head}${length}\r\n${GOOD}`.replaceAll('\r\n', '\n')],
    ['one line that ends in LF', `${head}A: b\n${length}\r\n${GOOD}`],
    ['a head that ends in LF', `${head}${length}\n${GOOD}`],
    ['a CR in a line', `${head}A: b\rc\r\n${length}\r\n${GOOD}`],
    ['HTTP/2.0 in the form of HTTP/1.1', `${head.replace('1.1', '2.0')}${length}\r\n${GOOD}`],
    ['HTTP/0.9', `POST ${UPDATES}\r\n\r\n`],
  ])('is refused when it is or has %s', async (_, bytes) => {
    const before = await stateOf(database);
    const [answer] = await exchange(url, bytes);
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
    expect(answer?.headers.get('content-type')).toBe('application/problem+json');
    expect(await stateOf(database)).toBe(before);
  });

  it('is refused though Node was told to read it leniently', async () => {
    const environment = environmentOf(database, createBroker(), { RELAY: 'off' });
    const { output } = await spawnProcess('api', { ...environment, NODE_OPTIONS: '--insecure-http-parser' });
    const before = await stateOf(database);
    const bytes = `${head}${length}Transfer-Encoding: chunked\r\n\r\n${CHUNKS}`;
    const [answer] = await exchange(`http://127.0.0.1:${/"port":(\d+)/.exec(output())?.[1]}`, bytes);
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
    expect(await stateOf(database)).toBe(before);
  });

  it('names the header that could be read in two ways', async () => {
    for (const [headers, errors] of [
      ['Host: localhost\r\n', [{ where: 'header Host', what: 'is sent more than once' }]],
      [
        'Transfer-Encoding: gzip, chunked\r\n',
        [{ where: 'header Transfer-Encoding', what: 'must be chunked, and nothing else' }],
      ],
    ] as const) {
      const [answer] = await exchange(url, `GET /livez HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n0\r\n\r\n`);
      expect(answer?.body).toMatchObject({ code: 'invalid_request', errors });
      expect(answer?.headers.get('connection')).toBe('close');
    }
  });

  it('changes nothing when the body ends early, and says so', async () => {
    const before = await stateOf(database);
    const { socket, received } = open(url);
    socket.end(`${head}Content-Length: 100\r\n\r\n${GOOD}`);
    await closed(socket);
    expect(parseAnswers(received())).toMatchObject([{ status: 400, body: { code: 'invalid_request' } }]);
    expect(await stateOf(database)).toBe(before);
  });

  it('changes nothing when the client vanishes before the end of the body', async () => {
    const before = await stateOf(database);
    const { socket } = open(url);
    socket.write(`${head}Content-Length: 100\r\n\r\n${GOOD}`, () => socket.resetAndDestroy());
    await closed(socket);
    expect(await send(url, 'GET', '/livez')).toMatchObject({ status: 200 });
    expect(await stateOf(database)).toBe(before);
  });

  it('never loses an idempotency key after many headers: takes it, or refuses the request', async () => {
    for (const many of [500, 1990, 2000, 2500, 3500]) {
      const before = await stateOf(database);
      const [answer] = await exchange(
        url,
        `${head}${length}${'a:\r\n'.repeat(many)}Idempotency-Key:\r\n\r\n${GOOD}`,
        'x x',
      );
      expect(['invalid_request', 'headers_too_large']).toContain(answer?.body.code);
      expect(await stateOf(database)).toBe(before);
    }
  });

  it('answers an expectation that it does not know as if there were none', async () => {
    const headers: [string, string][] = [JSON_TYPE, ['Expect', 'the-unexpected']];
    expect(await deliver(url, { ...post(UPDATES, GOOD), headers })).toMatchObject({ status: 200 });
    expect(
      await deliver(url, { ...post(UPDATES, GOOD), headers: [JSON_TYPE, ['Expect', '100-continue']] }),
    ).toMatchObject({
      status: 200,
    });
  });

  // Java's HttpClient offers HTTP/2 with each request until an answer says that the server speaks
  // it.
  it.each([
    ['in one piece', (offer: string) => [`${head}${offer}${length}\r\n${GOOD}`]],
    ['head and body apart', (offer: string) => [`${head}${offer}${length}\r\n`, GOOD]],
    ['in pieces', (offer: string) => [`${head}${offer}${length}`, `\r\n${GOOD.slice(0, 9)}`, GOOD.slice(9)]],
    ['in chunks', (offer: string) => [`${head}${offer}Transfer-Encoding: chunked\r\n\r\n`, CHUNKS]],
  ])('answers an offer of HTTP/2 (Upgrade: h2c) by HTTP/1.1, %s', async (_, parts) => {
    const offer = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n';
    const { version } = (await send(url, 'GET', '/v1/accounts/alice')).body;
    const { socket, received } = open(url);
    for (let count = 1; count <= 3; count += 1) {
      for (const part of parts(offer)) {
        socket.write(part);
        await delay(20); // each in a packet of its own
      }
      await until('it is answered', () => parseable(received()) === count);
    }
    socket.destroy();
    const answers = parseAnswers(received());
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(answers.map(({ body }) => body.version)).toEqual([version + 1, version + 2, version + 3]);
    expect(answers.map(({ headers }) => headers.get('connection'))).not.toContain('close');
  });

  it('answers pipelined requests in their order', async () => {
    const { socket, received } = open(url);
    const many = Array.from({ length: 20 }, (_, index) => {
      const body = `{"accountId":"alice","amount":${index + 1}}`;
      return `${head}Content-Length: ${body.length}\r\n\r\n${body}`;
    });
    socket.write(many.join(''));
    await until('all are answered', () => parseable(received()) === 20);
    socket.destroy();
    expect(parseAnswers(received()).map(({ body }) => body.amount)).toEqual(many.map((_, index) => index + 1));
  });
});

function parseable(received: Buffer): number {
  return received.toString().match(/"createdAt":"[^"]+"}/g)?.length ?? 0;
}
