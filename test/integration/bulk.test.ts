// POST /v1/balance-updates/bulk: many updates in a request, each standing alone.
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  insertAccounts,
  send,
  startApiHere,
  startWorkerHere,
  verified,
} from '../support/harness.ts';

let database: Database;
let url: string;

beforeAll(async () => {
  database = await createDatabase();
  const broker = createBroker();
  ({ url } = await startApiHere(database, broker));
  await startWorkerHere(database, broker);
  await insertAccounts(database, 'a', 'b', 'frozen', 'hot', 'full');
  await send(url, 'PATCH', '/v1/accounts/frozen', { status: 'frozen' });
});
afterAll(cleanUp);

/** Of a change, whatever the epoch. */
const idOf = (change: string) => expect.stringMatching(`^${change}:[0-9a-z]{8}$`);
const bulk = (updates: unknown) => send(url, 'POST', '/v1/balance-updates/bulk', { updates });

it('answers each update in its place, as it would have been answered alone', async () => {
  const { status, body } = await bulk([
    { accountId: 'a', amount: 10, reference: 'first', idempotencyKey: 'k1' },
    { accountId: 'a', amount: -4 },
    { accountId: 'a', amount: -7 },
    { accountId: 'nobody', amount: 1 },
    { accountId: 'frozen', amount: 1 },
    { accountId: 'a', amount: 10, reference: 'first', idempotencyKey: 'k1' },
    { accountId: 'a', amount: 11, idempotencyKey: 'k1' },
    { accountId: 'b', amount: 5 },
  ]);
  expect(status).toBe(200);
  expect(body.results).toHaveLength(8);
  expect(body.results).toMatchObject([
    { status: 200, replayed: false, accountId: 'a', amount: 10, balance: 10, version: 1, eventId: idOf('a:1') },
    { status: 200, replayed: false, balance: 6, version: 2 },
    { status: 400, replayed: false, code: 'insufficient_funds', balance: 6, version: 2 },
    { status: 404, code: 'account_not_found', accountId: 'nobody' },
    { status: 409, code: 'account_frozen', accountId: 'frozen' },
    { status: 200, replayed: true, balance: 10, version: 1, eventId: idOf('a:1') },
    { status: 422, code: 'idempotency_key_reused' },
    { status: 200, balance: 5, version: 1, eventId: idOf('b:1') },
  ]);
});

it('replays a whole request under its keys', async () => {
  const updates = Array.from({ length: 300 }, (_, index) => ({
    accountId: 'hot',
    amount: 1,
    idempotencyKey: `n${index}`,
  }));
  const first = await bulk(updates);
  const second = await bulk(updates);
  expect(first.body.results.every((result: { replayed: boolean }) => !result.replayed)).toBe(true);
  expect(second.body.results).toEqual(first.body.results.map((result: object) => ({ ...result, replayed: true })));
  expect((await send(url, 'GET', '/v1/accounts/hot')).body).toMatchObject({ balance: 300, version: 300 });
});

it('takes a thousand with the longest keys and references', async () => {
  const updates = Array.from({ length: 1000 }, (_, index) => ({
    accountId: 'full',
    amount: 1,
    reference: '\u{1f600}'.repeat(255),
    idempotencyKey: String(index).padEnd(255, 'k'),
  }));
  const { status, body } = await bulk(updates);
  expect(status).toBe(200);
  expect(body.results.at(-1)).toMatchObject({ status: 200, balance: 1000, version: 1000 });
});

it.each([
  ['no update', [], '/updates'],
  ['a thousand and one', Array.from({ length: 1001 }, () => ({ accountId: 'a', amount: 1 })), '/updates'],
  ['no list', { accountId: 'a', amount: 1 }, '/updates'],
  [
    'one bad amount among good ones',
    [
      { accountId: 'a', amount: 1 },
      { accountId: 'a', amount: 0 },
    ],
    '/updates/1/amount',
  ],
  ['a bad key', [{ accountId: 'a', amount: 1, idempotencyKey: '' }], '/updates/0/idempotencyKey'],
  ['an unknown field', [{ accountId: 'a', amount: 1, note: 'x' }], '/updates/0/note'],
])('refuses a request with %s as a whole, and changes nothing', async (_, updates, where) => {
  const before = await send(url, 'GET', '/v1/accounts/a');
  const refused = await bulk(updates);
  expect(refused).toMatchObject({ status: 400, body: { code: 'invalid_request', errors: [{ where }] } });
  expect((await send(url, 'GET', '/v1/accounts/a')).body).toEqual(before.body);
});

it('ends in a complete ledger', async () => {
  expect(await drained(database)).toMatchObject({ pendingChanges: 0, offendingAccounts: 0 });
  expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
});
