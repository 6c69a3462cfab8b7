// Bodies, their types and lengths, and idempotency keys that are not as the contract wants them:
// each gets its problem document, and changes nothing.
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  startApiHere,
} from '../support/harness.ts';
import { deliver, exchange, expectInvalid, JSON_TYPE, type Message, post, stateOf } from '../support/http-client.ts';

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

const isRefused = (message: Message, where: string) => expectInvalid(url, database, message, where);

describe('a body', () => {
  it.each([
    ['an unknown field', '{"accountId":"alice","amount":1,"currency":"EUR"}', '/currency'],
    ['a field in other letters', '{"accountId":"alice","amount":1,"Amount":2}', '/Amount'],
    ['an empty name', '{"accountId":"alice","amount":1,"":2}', '/'],
    ['a name that a pointer has to escape', '{"accountId":"alice","amount":1,"a/b~c":2}', '/a~1b~0c'],
    ['__proto__', '{"accountId":"alice","amount":1,"__proto__":{"amount":2}}', '/__proto__'],
    ['__proto__ instead of its fields', '{"__proto__":{"accountId":"alice","amount":1}}', '/__proto__'],
    ['constructor', '{"accountId":"alice","amount":1,"constructor":{"prototype":{}}}', '/constructor'],
    ['toString', '{"accountId":"alice","amount":1,"toString":null}', '/toString'],
    // A place is shown as one line that any JSON parser can read, and no longer than the document
    // says.
    ['a lone surrogate for a name', '{"accountId":"alice","amount":1,"\\ud800":1}', 'body'],
    ['a line break in a name', '{"accountId":"alice","amount":1,"a\\nb":1}', 'body'],
    ['a name of 8,000 characters', `{"accountId":"alice","amount":1,"${'x'.repeat(8000)}":1}`, `/${'x'.repeat(198)}…`],
    ['60 unknown fields', `{${Array.from({ length: 60 }, (_, i) => `"f${i}":1`)}}`, '/amount'],
    ['1,500 unknown fields', `{${Array.from({ length: 1500 }, (_, i) => `"f${i}":1`)}}`, 'body'],
    ['a list of 2,100', `{"accountId":"alice","amount":[${Array.from({ length: 2100 }, () => 1)}]}`, 'body'],
    [
      '1,100 fields in fields',
      `{"x":[${Array.from({ length: 22 }, () => `{${Array.from({ length: 50 }, (_, i) => `"f${i}":1`)}}`)}]}`,
      'body',
    ],
    ['a text of 9,000 characters', `{"accountId":"alice","amount":1,"reference":"${'x'.repeat(9000)}"}`, 'body'],
    ['null', 'null', 'body'],
    ['a string', '"alice"', 'body'],
    ['a number', '5', 'body'],
    ['an array', `[${GOOD}]`, 'body'],
    ['the same name twice', '{"accountId":"alice","amount":1,"amount":1000}', 'body'],
    ['the same name twice with the same value', '{"accountId":"alice","amount":1,"amount":1}', 'body'],
    ['the same name twice, once escaped', '{"accountId":"alice","amount":1,"\\u0061mount":1000}', 'body'],
    ['a name with an escape', '{"accountId":"alice","\\u0061mount":1000}', 'body'],
    ['the same name twice, spaced', '{"accountId":"alice","amount" : 1,"amount"\n\t:1000}', 'body'],
    ['the same name twice, nested', '{"accountId":"alice","amount":1,"x":{"y":[{"z":1,"z":2}]}}', 'body'],
    ['__proto__ twice', '{"accountId":"alice","amount":1,"__proto__":1,"__proto__":2}', 'body'],
    ['single quotes', "{'accountId':'alice','amount':1}", 'body'],
    ['a comment', `${GOOD}// ok`, 'body'],
    ['a trailing comma', '{"accountId":"alice","amount":1,}', 'body'],
    ['trailing rubbish', `${GOOD}x`, 'body'],
    ['a second document', `${GOOD}\n${GOOD}`, 'body'],
    ['NUL after it', `${GOOD}\0`, 'body'],
    ['no end', '{"accountId":"alice","amount":1', 'body'],
    ['a raw newline in a string', '{"accountId":"alice","amount":1,"reference":"a\nb"}', 'body'],
    ['a form', 'accountId=alice&amount=1', 'body'],
    ['nothing but spaces', '   ', 'body'],
    ['nothing', '', 'body'],
    ['a byte order mark', `\ufeff${GOOD}`, 'body'],
    ['a byte order mark alone', '\ufeff', 'body'],
    ['arrays as deep as the limit allows', `${'['.repeat(8192)}${']'.repeat(8192)}`, 'body'],
    ['objects as deep as the limit allows', `${'{"a":'.repeat(2700)}1${'}'.repeat(2700)}`, 'body'],
    ['depth in a field', `{"accountId":"alice","amount":${'['.repeat(8000)}${']'.repeat(8000)}}`, 'body'],
    ['a little depth in a field', '{"accountId":"alice","amount":[[[[[[[]]]]]]]}', '/amount'],
  ])('is refused when it is or holds %s', (_, body, where) => isRefused(post(UPDATES, body), where));

  it.each([
    ['a stray byte', [0xff]],
    ['half a character', [0xc3]],
    ['an overlong encoding', [0xc0, 0xaf]],
    ['an encoded surrogate', [0xed, 0xa0, 0x80]],
    ['a character above U+10FFFF', [0xf4, 0x90, 0x80, 0x80]],
  ])('is refused when it holds %s', (_, bytes) => {
    const [head, tail] = ['{"accountId":"alice","amount":1,"reference":"', '"}'].map((part) => Buffer.from(part));
    return isRefused(post(UPDATES, Buffer.concat([head as Buffer, Buffer.from(bytes), tail as Buffer])), 'body');
  });

  it('is refused in UTF-16', () => isRefused(post(UPDATES, Buffer.from(GOOD, 'utf16le')), 'body'));

  it('is refused when it is nested 100,000 deep, where such a body is allowed', async () => {
    const large = await startApiHere(database, createBroker(), { RELAY: 'off', BODY_BYTES_MAX: '1000000' });
    for (const body of [`${'['.repeat(100_000)}${']'.repeat(100_000)}`, `${'{"a":'.repeat(1e5)}1${'}'.repeat(1e5)}`]) {
      expect((await deliver(large.url, post(UPDATES, body))).body.code).toBe('invalid_request');
    }
  });

  it('is taken with its members in any order and spacing', async () => {
    const { status } = await deliver(url, post(UPDATES, '\r\n\t{ "amount" :\n-1 , "accountId"\t:"alice" } \n'));
    expect(status).toBe(200);
  });
});

describe('the length of a body', () => {
  const chunked = (bytes: number): Message => ({
    ...post(UPDATES, `${bytes.toString(16)}\r\n${'x'.repeat(bytes)}\r\n0\r\n\r\n`),
    headers: [JSON_TYPE, ['Transfer-Encoding', 'chunked']],
  });

  it.each([
    ['one byte too many', post(UPDATES, GOOD.padEnd(16_385))],
    ['1 MB', post(UPDATES, ' '.repeat(1e6))],
    ['1 MB in chunks', chunked(1e6)],
    ['20 MB', post(UPDATES, ' '.repeat(20e6))],
    ['20 MB in chunks', chunked(20e6)],
  ])('is refused when it is %s, and the client gets to read it', async (_, message) => {
    const before = await stateOf(database);
    const answer = await deliver(url, message);
    expect(answer).toMatchObject({ status: 413, body: { code: 'payload_too_large' } });
    expect(answer.body.detail).toContain('16384 bytes');
    expect(await stateOf(database)).toBe(before);
  });

  it('is refused at once when 20 MB are announced, before they are sent', async () => {
    const [answer] = await exchange(
      url,
      `POST ${UPDATES} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 20000000\r\n\r\n{`,
    );
    expect(answer).toMatchObject({ status: 413, body: { code: 'payload_too_large' } });
  });

  it('may be all that BODY_BYTES_MAX allows', async () => {
    expect((await deliver(url, post(UPDATES, GOOD.padEnd(16_384)))).status).toBe(200);
    const large = await startApiHere(database, createBroker(), { RELAY: 'off', BODY_BYTES_MAX: '4000000' });
    expect((await deliver(large.url, post(UPDATES, GOOD.padEnd(4e6)))).status).toBe(200);
    const longString = JSON.stringify({ accountId: 'alice', amount: 1, reference: 'x\\"'.repeat(5e5) });
    expect((await deliver(large.url, post(UPDATES, longString))).body.code).toBe('invalid_request');
  });
});

describe('the type of a body', () => {
  const typed = (...headers: [string, string][]) => ({ method: 'POST', path: UPDATES, headers, body: GOOD });

  it.each([
    ['none', []],
    ['an empty one', [['Content-Type', '']]],
    ['text/plain', [['Content-Type', 'text/plain']]],
    ['a form', [['Content-Type', 'application/x-www-form-urlencoded']]],
    ['a longer name', [['Content-Type', 'application/json5']]],
    ['another JSON', [['Content-Type', 'application/merge-patch+json']]],
    ['JSON somewhere in it', [['Content-Type', 'text/plain; application/json']]],
    ['another charset', [['Content-Type', 'application/json; charset=latin1']]],
    ['UTF-16', [['Content-Type', 'application/json; charset=utf-16']]],
  ] as [string, [string, string][]][])('is refused when it is %s', async (_, headers) => {
    const before = await stateOf(database);
    expect((await deliver(url, typed(...headers))).body).toMatchObject({ code: 'unsupported_media_type', status: 415 });
    expect(await stateOf(database)).toBe(before);
  });

  it.each([
    'application/json',
    'Application/JSON',
    'application/json; charset=utf-8',
    'application/json;charset="UTF-8"',
  ])('is taken when it is %s', async (type) =>
    expect((await deliver(url, typed(['Content-Type', type]))).status).toBe(200),
  );

  it.each(['gzip', 'deflate', 'br', 'GZIP, identity'])('is refused under Content-Encoding %s', async (encoding) => {
    const message = { ...typed(JSON_TYPE, ['Content-Encoding', encoding]), body: gzipSync(GOOD) };
    expect((await deliver(url, message)).body).toMatchObject({ code: 'unsupported_media_type', status: 415 });
  });
});

describe('an idempotency key', () => {
  const key = (...values: string[]) =>
    post(UPDATES, GOOD, ...values.map((value): [string, string] => ['Idempotency-Key', value]));

  it.each([
    ['empty', ['']],
    ['an empty string in quotes', ['""']],
    ['256 characters', ['k'.repeat(256)]],
    ['256 characters in quotes', [`"${'k'.repeat(256)}"`]],
    ['not ASCII', ['clé']],
    ['an emoji', ['😀']],
    ['with a tab', ['a\tb']],
    ['a quote that does not end', ['"abc']],
    ['a quote that ends early', ['"ab"c']],
    ['a lone quote', ['"']],
    ['a quote with a wrong escape', ['"a\\b"']],
    ['sent twice', ['a', 'b']],
    ['sent twice, the same', ['a', 'a']],
  ])('is refused when it is %s', (_, values) => isRefused(key(...values), 'header Idempotency-Key'));

  it.each([
    ['bare and in quotes', 'same', '"same"'],
    ['with an escaped quote', 'say "hi"', '"say \\"hi\\""'],
    ['with 255 characters', 'k'.repeat(255), `"${'k'.repeat(255)}"`],
    ['with spaces around it', 'padded', '  padded  '],
  ])('is the same %s', async (_, one, other) => {
    const first = await deliver(url, key(one));
    const second = await deliver(url, key(other));
    expect(first.headers.get('idempotent-replayed')).toBe(null);
    expect(second.headers.get('idempotent-replayed')).toBe('true');
    expect(second.body).toEqual(first.body);
  });

  it('is another in other letters', async () => {
    const [lower, upper] = [await deliver(url, key('case')), await deliver(url, key('CASE'))];
    expect(upper.body.version).toBe(lower.body.version + 1);
  });
});
