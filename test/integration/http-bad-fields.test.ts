// Field values that are not as the contract wants them: each gets its problem document, and changes
// nothing.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { calls } from '../../src/api/calls/table.ts';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  send,
  startApiHere,
} from '../support/harness.ts';
import { expectInvalid, type Message, post, stateOf } from '../support/http-client.ts';

const UPDATES = '/v1/balance-updates';
const ACCOUNTS = '/v1/accounts';

let database: Database;
let url: string;

beforeAll(async () => {
  database = await createDatabase();
  ({ url } = await startApiHere(database, createBroker(), { RELAY: 'off' }));
  await createAccount(url, 'alice', 100);
});
afterAll(cleanUp);

const isRefused = (message: Message, where: string) => expectInvalid(url, database, message, where);

describe('amount', () => {
  it.each([
    ['a string', '"5"'],
    ['null', 'null'],
    ['true', 'true'],
    ['an array', '[5]'],
    ['an object', '{"valueOf":5}'],
    ['0', '0'],
    ['-0', '-0'],
    ['2^53', '9007199254740992'],
    ['-2^53', '-9007199254740992'],
    ['2^53 + 1, which a parser rounds', '9007199254740993'],
    ['2^63', '9223372036854775808'],
    ['400 digits, which a parser reads as infinite', '9'.repeat(400)],
    ['10,000 digits', '1'.repeat(10_000)],
  ])('is refused when it is %s', (_, amount) =>
    isRefused(post(UPDATES, `{"accountId":"alice","amount":${amount}}`), '/amount'),
  );

  it.each(['1.5', '1.0', '-1.0', '0.9999999999999999999', '1e2', '1E2', '1e-2', '100e-2', '-1e0', '1e400', '5.0e0'])(
    'is refused when it is written as %s',
    (amount) => isRefused(post(UPDATES, `{"accountId":"alice","amount":${amount}}`), 'body'),
  );

  it.each(['+1', '01', '.5', '5.', '0x10', '1_000', 'NaN', 'Infinity', '-', "'5'", '٥'])(
    'is refused when it is %s, which is no JSON',
    (amount) => isRefused(post(UPDATES, `{"accountId":"alice","amount":${amount}}`), 'body'),
  );

  it('is refused when it is missing', () => isRefused(post(UPDATES, '{"accountId":"alice"}'), '/amount'));
});

describe('accountId', () => {
  it.each([
    ['empty', '""'],
    ['65 characters', JSON.stringify('a'.repeat(65))],
    ['one dot', '"."'],
    ['two dots', '".."'],
    ['of spaces', '" "'],
    ['padded', '"alice "'],
    ['ended by a newline', '"alice\\n"'],
    ['ended by NUL', '"alice\\u0000"'],
    ['a path', '"a/b"'],
    ['percent-encoded', '"%61lice"'],
    ['an emoji', '"😀"'],
    ['a look-alike letter', '"аlice"'],
    ['a lone surrogate', '"\\ud800"'],
    ['a number', '5'],
    ['null', 'null'],
    ['an array', '["alice"]'],
  ])('is refused when it is %s', async (_, id) => {
    await isRefused(post(UPDATES, `{"accountId":${id},"amount":1}`), '/accountId');
    await isRefused(post(ACCOUNTS, `{"id":${id}}`), '/id');
  });
});

describe('reference', () => {
  it.each([
    ['empty', '""'],
    ['256 characters', JSON.stringify('x'.repeat(256))],
    ['null', 'null'],
    ['a number', '5'],
    ['an array', '["x"]'],
    ['with NUL', '"a\\u0000b"'],
    ['with an escaped newline', '"a\\nb"'],
    ['with DEL', '"a\\u007fb"'],
    ['with a C1 control character', '"a\\u0085b"'],
    ['with a lone high surrogate', '"a\\ud83db"'],
    ['with a lone low surrogate', '"a\\ude00b"'],
    ['with surrogates in the wrong order', '"\\ude00\\ud83d"'],
  ])('is refused when it is %s', (_, reference) =>
    isRefused(post(UPDATES, `{"accountId":"alice","amount":1,"reference":${reference}}`), '/reference'),
  );

  it.each([
    ['255 characters', 'x'.repeat(255)],
    ['255 characters of two UTF-16 units each', '\u{1f600}'.repeat(255)],
    ['one space', ' '],
    ['Persian with a joiner', 'می\u200cخواهم'],
    ['a heart, in colour by a variation selector', '\u2764\ufe0f'],
    ['accents, composed and not', 'é é'],
    ['emoji', '👩‍👩‍👧 order'],
    ['quotes, braces and what looks like two equal names', '","amount":1,"amount":2,{}[]\\'],
    ['what looks like a fraction', '1.5e3'],
    ['SQL', "'; DROP TABLE account; --"],
    ['array syntax of PostgreSQL', '{"a",NULL}'],
    ['NULL', 'NULL'],
  ])('comes back as it was sent when it is %s', async (_, reference) => {
    const { body } = await send(url, 'POST', UPDATES, { accountId: 'alice', amount: 1, reference });
    const { rows } = await database.pool.query('SELECT reference FROM outbox WHERE version = $1', [body.version]);
    expect(rows).toEqual([{ reference }]);
  });
});

describe('text with characters that are not seen', () => {
  // All that Unicode calls bidirectional controls, and some of each other kind: nobody should have
  // to know the list.
  const bidirectional = [
    0x61c,
    0x200e,
    0x200f,
    ...[0, 1, 2, 3, 4].map((more) => 0x202a + more),
    0x2066,
    0x2067,
    0x2068,
    0x2069,
  ];
  const others = [0xad, 0x34f, 0x115f, 0x180e, 0x200b, 0x2028, 0x2029, 0x2060, 0x2064, 0x3164, 0xfeff, 0xfff9, 0xe0020];

  it('is refused in references and metadata, and the character is named', async () => {
    const before = await stateOf(database);
    for (const code of [...bidirectional, ...others]) {
      const text = `order ${String.fromCodePoint(code)}1001`;
      const name = `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
      for (const [notes, where] of [
        [{ reference: text }, '/reference'],
        [{ metadata: { order: text } }, '/metadata/order'],
      ] as const) {
        const { body } = await send(url, 'POST', UPDATES, { accountId: 'alice', amount: 1, ...notes });
        expect(body, name).toMatchObject({ code: 'invalid_request', errors: [{ where }] });
        expect(body.errors[0].what).toContain(`${name}:`);
      }
    }
    expect(await stateOf(database)).toBe(before);
  });

  it('is refused wherever a call takes a reference', async () => {
    const reference = 'order \u202e1001';
    const moving = calls.filter(({ path, body }) => body && !['/v1/accounts', '/v1/accounts/:id'].includes(path));
    for (const { method, path, body } of moving) {
      const isBulk = path.endsWith('/bulk');
      const [example] = Object.values(body?.examples ?? {}) as [Record<string, object[]>];
      const [list] = Object.keys(example);
      const sent = isBulk
        ? { [list as string]: example[list as string]?.map((one) => ({ ...one, reference })) }
        : { ...example, reference };
      const message = { ...post(path.replace(/:\w+/g, 'alice'), sent), method: method.toUpperCase() };
      await isRefused(message, isBulk ? `/${list}/0/reference` : '/reference');
    }
  });
});

it('an idempotency key in the body is sent to its header, by each call that has one there', async () => {
  const keyed = calls.filter(
    ({ path, headers }) => !path.endsWith('/bulk') && headers && 'Idempotency-Key' in headers.shape,
  );
  expect(keyed.length).toBeGreaterThan(5);
  for (const { method, path, body } of keyed) {
    const [example] = Object.values(body?.examples ?? {});
    const sent = { ...(example as object), idempotencyKey: 'order-1001' };
    const { status, body: answer } = await send(
      url,
      method.toUpperCase() as 'PATCH' | 'POST',
      path.replace(/:\w+/g, 'alice'),
      sent,
    );
    expect({ path, status, errors: answer.errors }).toEqual({
      ...{ path, status: 400 },
      errors: [
        { where: '/idempotencyKey', what: 'is not a field of this body: send it in the header Idempotency-Key' },
      ],
    });
  }
});

describe('overdraftLimit and status', () => {
  it.each(['-1', '"5"', 'null', 'true', '[1]', '9007199254740992', '-9007199254740992'])(
    'a limit is refused when it is %s',
    async (limit) => {
      await isRefused(post(ACCOUNTS, `{"id":"new","overdraftLimit":${limit}}`), '/overdraftLimit');
      await isRefused(
        { ...post(`${ACCOUNTS}/alice`, `{"overdraftLimit":${limit}}`), method: 'PATCH' },
        '/overdraftLimit',
      );
    },
  );

  it.each(['"ended"', '"OPEN"', '""', 'null', 'true', '["open"]'])('a status is refused when it is %s', (status) =>
    isRefused({ ...post(`${ACCOUNTS}/alice`, `{"status":${status}}`), method: 'PATCH' }, '/status'),
  );

  it.each([
    ['no change at all', '{}', 'body'],
    ['a balance', '{"balance":1000000}', '/balance'],
    ['a version', '{"status":"open","version":0}', '/version'],
    ['another id', '{"id":"bob"}', '/id'],
  ])('a change of an account is refused when it holds %s', (_, body, where) =>
    isRefused({ ...post(`${ACCOUNTS}/alice`, body), method: 'PATCH' }, where),
  );
});
