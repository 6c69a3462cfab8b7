// Where several things are wrong with a request, the first in the order of the catalogue is the
// answer.
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type ProblemCode, problems } from '../../src/shared/problems.ts';
import {
  type Answer,
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  send,
  startApiHere,
} from '../support/harness.ts';
import { deliver, JSON_TYPE, type Message, post, stateOf } from '../support/http-client.ts';

const UPDATES = '/v1/balance-updates';
const AMOUNT_MAX = Number.MAX_SAFE_INTEGER;
const TOO_LARGE = 'x'.repeat(20_000);
const PLAIN: [string, string] = ['Content-Type', 'text/plain'];
const BAD_KEY: [string, string] = ['Idempotency-Key', ''];

let database: Database;
let url: string;

beforeAll(async () => {
  database = await createDatabase();
  ({ url } = await startApiHere(database, createBroker(), { RELAY: 'off' }));
});
afterAll(cleanUp);

it('is described in docs/api.md, each code with its status, in the same order', async () => {
  const docs = await readFile(new URL('../../docs/api.md', import.meta.url), 'utf8');
  const documented = [...docs.matchAll(/^\| `([a-z_]+)` \| (\d{3}) \|/gm)].map(([, code, status]) => [
    code,
    Number(status),
  ]);
  expect(documented).toEqual(Object.entries(problems).map(([code, { status }]) => [code, status]));
});

const pairs: { first: ProblemCode; second: string; message: Message }[] = [
  {
    first: 'headers_too_large',
    second: 'an unknown path',
    message: { path: '/nothing', headers: [['X-Long', 'x'.repeat(20_000)]] },
  },
  {
    first: 'not_found',
    second: 'a method it would not take, a body that is too large and of the wrong type',
    message: { method: 'DELETE', path: '/v1/nothing', headers: [PLAIN], body: TOO_LARGE },
  },
  { first: 'not_found', second: 'a broken body', message: post('/v1/balance-updates/', '{') },
  {
    first: 'not_found',
    second: 'a wrong method, in a path that cannot be decoded',
    message: { method: 'DELETE', path: '/v1/accounts/%zz' },
  },
  {
    first: 'not_found',
    second: 'a broken body, in a path that cannot be decoded',
    message: post('/v1/accounts/%zz', '{'),
  },
  {
    first: 'method_not_allowed',
    second: 'a body that is too large and of the wrong type',
    message: { method: 'PUT', path: UPDATES, headers: [PLAIN], body: TOO_LARGE },
  },
  {
    first: 'method_not_allowed',
    second: 'an account id that is none',
    message: { method: 'POST', path: '/v1/accounts/a%20b', headers: [JSON_TYPE], body: '{}' },
  },
  {
    first: 'payload_too_large',
    second: 'the wrong type',
    message: { method: 'POST', path: UPDATES, headers: [PLAIN], body: TOO_LARGE },
  },
  {
    first: 'payload_too_large',
    second: 'an account id that is none',
    message: { method: 'PATCH', path: '/v1/accounts/a%20b', headers: [JSON_TYPE], body: TOO_LARGE },
  },
  { first: 'payload_too_large', second: 'a bad key', message: post(UPDATES, TOO_LARGE, BAD_KEY) },
  {
    first: 'unsupported_media_type',
    second: 'broken JSON and a bad key',
    message: { method: 'POST', path: UPDATES, headers: [PLAIN, BAD_KEY], body: '{' },
  },
  {
    first: 'unsupported_media_type',
    second: 'an account id that is none',
    message: { method: 'PATCH', path: '/v1/accounts/a%20b', headers: [PLAIN], body: '{' },
  },
  {
    first: 'invalid_request',
    second: 'an account that does not exist',
    message: post(UPDATES, { accountId: 'nobody', amount: 0 }),
  },
  {
    first: 'invalid_request',
    second: 'an account that does not exist, in a bad query',
    message: { path: '/v1/accounts/nobody/entries?limit=0' },
  },
  {
    first: 'invalid_request',
    second: 'an account that does not exist, in a bad key',
    message: post(UPDATES, { accountId: 'nobody', amount: 1 }, BAD_KEY),
  },
];

it.each(pairs)('answers $first before $second', async ({ first, message }) => {
  const before = await stateOf(database);
  expect((await deliver(url, message)).body).toMatchObject({ code: first, status: problems[first].status });
  expect(await stateOf(database)).toBe(before);
});

const keyed = (accountId: string, amount: number, key = 'key') =>
  send(url, 'POST', UPDATES, { accountId, amount }, { 'idempotency-key': key });
const change = (accountId: string, body: object) => send(url, 'PATCH', `/v1/accounts/${accountId}`, body);
const codeOf = (answer: Answer) => answer.body.code;

it('answers a retry with its first answer before account_frozen', async () => {
  await createAccount(url, 'frozen-later', 10);
  const applied = await keyed('frozen-later', -1);
  const declined = await keyed('frozen-later', -100, 'declined');
  await change('frozen-later', { status: 'frozen' });
  expect(await keyed('frozen-later', -1)).toMatchObject({ status: 200, body: applied.body });
  expect(await keyed('frozen-later', -100, 'declined')).toMatchObject({ status: 400, body: declined.body });
  expect(codeOf(await keyed('frozen-later', -1, 'another'))).toBe('account_frozen');
});

it('answers idempotency_key_reused before account_frozen and insufficient_funds', async () => {
  await createAccount(url, 'reusing', 10);
  await keyed('reusing', -1);
  expect(codeOf(await keyed('reusing', -1000))).toBe('idempotency_key_reused');
  await change('reusing', { status: 'frozen' });
  expect(codeOf(await keyed('reusing', -1000))).toBe('idempotency_key_reused');
});

it('answers idempotency_key_reused before account_not_found', async () => {
  // No call removes an account: the state of a database that was restored in part.
  await createAccount(url, 'removed', 10);
  await keyed('removed', -1);
  await database.pool.query(`DELETE FROM account WHERE account_id = 'removed'`);
  expect(codeOf(await keyed('removed', -2))).toBe('idempotency_key_reused');
  expect(codeOf(await keyed('removed', -2, 'another'))).toBe('account_not_found');
});

it('answers account_frozen before balance_out_of_range and insufficient_funds', async () => {
  await createAccount(url, 'cold', 10);
  await change('cold', { status: 'frozen' });
  expect(codeOf(await keyed('cold', AMOUNT_MAX))).toBe('account_frozen');
  expect(codeOf(await keyed('cold', -11))).toBe('account_frozen');
});

it('answers balance_out_of_range before insufficient_funds', async () => {
  await send(url, 'POST', '/v1/accounts', { id: 'deep', overdraftLimit: 10 });
  await keyed('deep', -5);
  expect(codeOf(await keyed('deep', -AMOUNT_MAX, 'out'))).toBe('balance_out_of_range');
  expect(codeOf(await keyed('deep', -6, 'short'))).toBe('insufficient_funds');
});

it('answers account_not_found before a limit that is too low could matter', async () => {
  expect(codeOf(await change('nobody', { overdraftLimit: 0 }))).toBe('account_not_found');
});
