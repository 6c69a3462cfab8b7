// Keys that are bound to a prefix of account ids: what they may, and that they learn nothing of any
// other account. Over real HTTP.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { calls } from '../../src/api/calls/table.ts';
import { createKey } from '../../src/cli/api-keys.ts';
import { SCOPES } from '../../src/shared/api-key.ts';
import { watch } from '../support/console-watcher.ts';
import {
  type Answer,
  type Broker,
  cleanUp,
  createAccount,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  drained,
  send,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { stateOf } from '../support/http-client.ts';

const BOUND = 'game1:';
const UPDATES = '/v1/balance-updates';
const DETAIL = 'This API key is only valid for accounts whose id begins with game1:.';

let database: Database;
let broker: Broker;
let url: string;
let operator: Record<string, string>;
let tenant: Record<string, string>;

async function boundKey(actor: string, accountPrefix: string): Promise<Record<string, string>> {
  const client = await database.pool.connect();
  const { token } = await createKey(client, { actor, scopes: SCOPES, accountPrefix });
  client.release();
  return { authorization: `Bearer ${token}` };
}

beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
  ({ url } = await startApiHere(database, broker, { AUTH: 'required' }));
  await startWorkerHere(database, broker);
  ({ headers: operator } = await createApiKey(database, 'operator'));
  tenant = await boundKey('tenant', BOUND);
  for (const id of ['game1:alice', 'game1:bob', 'game1:carol', 'game1', 'game10:dave', 'game2:erin', 'bank']) {
    await createAccount(url, id, 1000, operator);
  }
  await drained(database); // tests look at whether anything was changed
});
afterAll(cleanUp);

interface Sent {
  method?: 'GET' | 'POST' | 'PATCH';
  path: string;
  body?: unknown;
}
const as = (headers: Record<string, string>, { method = 'GET', path, body }: Sent) =>
  send(url, method, path, body, headers);
const post = (path: string, body: unknown): Sent => ({ method: 'POST', path, body });
const move = (from: string, to: string) => post('/v1/transfers', { from, to, amount: 1 });

/** Every call, in each way in which a request can name an account. */
const named: Record<string, (account: string) => Sent[]> = {
  updateBalance: (accountId) => [post(UPDATES, { accountId, amount: 1 })],
  updateBalances: (accountId) =>
    [undefined, true].map((atomic) =>
      post(`${UPDATES}/bulk`, {
        updates: [
          { accountId: 'game1:alice', amount: 1 },
          { accountId, amount: 1 },
        ],
        atomic,
      }),
    ),
  transfer: (account) => [
    move('game1:alice', account),
    move(account, 'game1:alice'),
    post('/v1/transfers', {
      legs: [
        { accountId: 'game1:alice', amount: -2 },
        { accountId: 'game1:bob', amount: 1 },
        { accountId: account, amount: 1 },
      ],
    }),
  ],
  transfers: (account) => [
    post('/v1/transfers/bulk', {
      transfers: [
        { from: 'game1:alice', to: 'game1:bob', amount: 1 },
        { from: 'game1:alice', to: account, amount: 1 },
      ],
    }),
  ],
  readTransfer: (account) => [{ path: `/v1/transfers/${account}:1:mwtowow0` }],
  reverse: (account) => [post('/v1/reversals', { of: `${account}:1:mwtowow0` })],
  placeHold: (account) => [post(`/v1/accounts/${account}/holds`, { holdId: 'h', amount: 1 })],
  listHolds: (account) => [{ path: `/v1/accounts/${account}/holds` }],
  readHold: (account) => [{ path: `/v1/accounts/${account}/holds/h` }],
  captureHold: (account) => [
    post(`/v1/accounts/${account}/holds/h/capture`, {}),
    post('/v1/accounts/game1:alice/holds/h/capture', { to: account }),
  ],
  releaseHold: (account) => [post(`/v1/accounts/${account}/holds/h/release`, {})],
  changeHold: (account) => [{ method: 'PATCH', path: `/v1/accounts/${account}/holds/h`, body: { amount: 2 } }],
  createAccount: (id) => [post('/v1/accounts', { id })],
  listAccounts: (prefix) => [{ path: `/v1/accounts?prefix=${prefix}` }],
  readAccount: (account) => [{ path: `/v1/accounts/${account}` }],
  changeAccount: (account) => [{ method: 'PATCH', path: `/v1/accounts/${account}`, body: { status: 'frozen' } }],
  readEntries: (account) => [{ path: `/v1/accounts/${account}/entries` }],
  exportEntries: (account) => [{ path: `/v1/accounts/${account}/entries/export?format=jsonl&reference=none` }],
  readPastBalance: (account) => [{ path: `/v1/accounts/${account}/balance?version=0` }],
  readChainHead: (account) => [{ path: `/v1/accounts/${account}/chain-head` }],
  readChainSegments: (account) => [{ path: `/v1/accounts/${account}/chain-segments` }],
  verifyAccount: (account) => [{ path: `/v1/accounts/${account}/verification` }],
};

/** As the client sees it, whatever the account is called. */
const seen = ({ status, headers, body }: Answer, account: string) =>
  JSON.stringify({
    ...{ status, body, challenge: headers.get('www-authenticate'), limit: headers.get('ratelimit') },
  }).replaceAll(account, 'ACCOUNT');

it.each(calls)('says forbidden to $id of an account outside, whether there is one or not', async ({ id }) => {
  const requests = named[id];
  expect(requests, `${id} is tested here`).toBeDefined();
  const before = await stateOf(database);
  const answers = new Set<string>();
  for (const account of ['game2:erin', 'game2:nobody', 'game10:dave', 'bank']) {
    for (const request of requests?.(account) ?? []) {
      const answer = await as(tenant, request);
      expect(answer, JSON.stringify(request)).toMatchObject({
        status: 403,
        body: { code: 'forbidden', detail: DETAIL },
      });
      expect(answer.headers.get('www-authenticate')).toBe(
        'Bearer realm="highload-balance", error="insufficient_scope"',
      );
      expect(answer.headers.has('idempotent-replayed')).toBe(false);
      answers.add(seen(answer, account));
    }
  }
  expect([...answers]).toHaveLength(1);
  expect(await stateOf(database)).toBe(before);
});

it('says the same of the balances that the console plots', async () => {
  const balances = (account: string) => as(tenant, { path: `/console/accounts/${account}/balances` });
  for (const account of ['game2:erin', 'game2:nobody']) {
    expect(await balances(account)).toMatchObject({ status: 403, body: { code: 'forbidden', detail: DETAIL } });
  }
  expect((await balances('game1:alice')).status).toBe(200);
});

it('takes every call of accounts inside', async () => {
  await as(tenant, post('/v1/accounts/game1:alice/holds', { holdId: 'h', amount: 10 }));
  await as(tenant, post('/v1/accounts/game1:bob/holds', { holdId: 'h', amount: 10 }));
  for (const { id } of calls) {
    for (const request of named[id]?.('game1:bob') ?? []) {
      // Two legs of one account, a hold that is gone, a frozen account: refused for what they are.
      const { status } = await as(tenant, request);
      expect([200, 201, 400, 404, 409], JSON.stringify(request)).toContain(status);
    }
  }
  await as(operator, { method: 'PATCH', path: '/v1/accounts/game1:bob', body: { status: 'open' } });
});

it('moves money between its own accounts, and reverses that', async () => {
  const moved = await as(tenant, move('game1:alice', 'game1:carol'));
  expect(moved.status).toBe(200);
  const { transferId } = moved.body;
  expect((await as(tenant, { path: `/v1/transfers/${transferId}` })).body.legs).toHaveLength(2);
  const reversed = await as(tenant, post('/v1/reversals', { of: transferId }));
  expect(reversed).toMatchObject({ status: 200, body: { reverses: transferId } });
  const credited = await as(tenant, post(UPDATES, { accountId: 'game1:carol', amount: 5 }));
  expect((await as(tenant, post('/v1/reversals', { of: credited.body.eventId }))).status).toBe(200);
});

it('refuses to read or reverse a transfer with a leg outside, and does not name that leg', async () => {
  const paying = (await as(operator, move('game1:carol', 'game2:erin'))).body;
  const paid = (await as(operator, move('bank', 'game1:carol'))).body;
  const three = await as(
    operator,
    post('/v1/transfers', {
      legs: [
        { accountId: 'game1:alice', amount: -2 },
        { accountId: 'game1:carol', amount: 1 },
        { accountId: 'game2:erin', amount: 1 },
      ],
    }),
  );
  expect(paying.transferId).toMatch(/^game1:carol:/);
  await drained(database);
  const before = await stateOf(database);
  for (const { transferId } of [paying, paid, three.body]) {
    const amounts = [{}, { amount: 1 }]; // of three legs in part: what is wrong with that is not said either
    const requests = [
      { path: `/v1/transfers/${transferId}` },
      ...amounts.map((amount) => post('/v1/reversals', { of: transferId, ...amount })),
    ];
    for (const request of requests) {
      const answer = await as(tenant, request);
      expect(answer, JSON.stringify(request)).toMatchObject({
        status: 403,
        body: { code: 'forbidden', detail: DETAIL },
      });
      const told = JSON.stringify(answer.body).replaceAll(transferId.replace(/:\d+:\w+$/, ''), 'the account of the id');
      expect(told).not.toMatch(/erin|bank/);
    }
  }
  expect(await stateOf(database)).toBe(before);
});

it('takes ids of changes apart: that of an account named like the prefix begins with the prefix too', async () => {
  const { eventId } = (await as(operator, post(UPDATES, { accountId: 'game1', amount: 5 }))).body;
  const { transferId } = (await as(operator, move('game1', 'game2:erin'))).body;
  for (const id of [eventId, transferId]) expect(id).toMatch(/^game1:\d+:/);
  await drained(database);
  const before = await stateOf(database);
  for (const request of [
    post('/v1/reversals', { of: eventId }),
    post('/v1/reversals', { of: transferId }),
    { path: `/v1/transfers/${transferId}` },
    post('/v1/reversals', { of: 'game1:999:mwtowow0' }), // there is none, and that is not said
    { path: '/v1/transfers/game1:999:mwtowow0' },
    { path: '/v1/accounts/game1' },
  ]) {
    expect(await as(tenant, request), request.path).toMatchObject({ status: 403, body: { code: 'forbidden' } });
  }
  expect(await stateOf(database)).toBe(before);
});

it('lists its own accounts alone, however it asks', async () => {
  const list = (query: string, headers = tenant) => as(headers, { path: `/v1/accounts${query}` });
  const ids = async (query: string) => (await list(query)).body.accounts.map(({ id }: { id: string }) => id);
  const own = ['game1:alice', 'game1:bob', 'game1:carol'];
  for (const query of ['', '?prefix=g', '?prefix=game1', '?prefix=game1:', '?cursor=a', '?cursor=game1']) {
    expect(await ids(query), query).toEqual(own);
  }
  expect(await ids('?prefix=game1:b')).toEqual(['game1:bob']);
  expect(await ids('?prefix=game1:nobody')).toEqual([]);
  expect(await ids('?cursor=game1:carol')).toEqual([]);
  expect(await ids('?cursor=game2:erin')).toEqual([]);
  expect((await list('?limit=3')).body.nextCursor).toBe('game1:carol');
  for (const prefix of ['game2', 'game10:', 'bank', 'h']) {
    expect((await list(`?prefix=${prefix}`)).body.code, prefix).toBe('forbidden');
  }
  expect((await list('', operator)).body.accounts.length).toBeGreaterThan(own.length);
});

it('gives no first answer again that was about an account outside, also not to the same client', async () => {
  const unbound = (await createApiKey(database, 'studio')).headers;
  const bound = await boundKey('studio', BOUND);
  const keyed = (headers: Record<string, string>, request: Sent) =>
    as({ ...headers, 'idempotency-key': 'k1' }, request);
  const mixed = move('game1:alice', 'bank');
  expect((await keyed(unbound, mixed)).status).toBe(200);
  expect(await keyed(bound, mixed)).toMatchObject({ status: 403, body: { code: 'forbidden' } });
  const inside = post(UPDATES, { accountId: 'game1:bob', amount: 3 });
  const first = await keyed(unbound, inside);
  const again = await keyed(bound, inside);
  expect(again.body).toEqual(first.body);
  expect(again.headers.get('idempotent-replayed')).toBe('true');
});

it('answers forbidden before the body where the path says so, and after invalid_request where the body does', async () => {
  const codeOf = async (request: Sent, headers = {}) => (await as({ ...tenant, ...headers }, request)).body.code;
  expect(await codeOf({ method: 'PATCH', path: '/v1/accounts/bank', body: '{' })).toBe('forbidden');
  expect(await codeOf({ path: '/v1/accounts/bank%20account' })).toBe('forbidden');
  expect(await codeOf({ path: '/v1/accounts/game1:a%20b' })).toBe('invalid_request');
  expect(await codeOf({ path: '/v1/transfers/bank' })).toBe('forbidden');
  expect(await codeOf({ path: '/v1/transfers/game1:alice' })).toBe('invalid_request');
  expect(await codeOf(post(UPDATES, { accountId: 'bank', amount: 0 }))).toBe('invalid_request');
  expect(await codeOf(post(UPDATES, { accountId: 'bank', amount: 1 }), { 'idempotency-key': 'é' })).toBe(
    'invalid_request',
  );
  const updates = [{ accountId: 'bank', amount: 1 }];
  expect(await codeOf(post(`${UPDATES}/bulk`, { updates }), { 'idempotency-key': 'k' })).toBe('invalid_request');
  expect(await codeOf(move('bank', 'bank'))).toBe('invalid_request');
});

it('counts a bulk request that is forbidden as 1, however much it holds', async () => {
  const limited = await startApiHere(database, broker, {
    ...{ AUTH: 'required', RELAY: 'off', RATE_LIMIT: '100', RATE_LIMIT_WINDOW_S: '60' },
  });
  const updates = Array.from({ length: 60 }, () => ({ accountId: 'bank', amount: 1 }));
  const transfers = Array.from({ length: 60 }, () => ({ from: 'bank', to: 'game1:alice', amount: 1 }));
  for (const [path, body] of [
    [`${UPDATES}/bulk`, { updates }],
    [`${UPDATES}/bulk`, { updates, atomic: true }],
    ['/v1/transfers/bulk', { transfers }],
  ] as const) {
    expect((await send(limited.url, 'POST', path, body, tenant)).body.code).toBe('forbidden');
  }
  const { headers } = await send(limited.url, 'GET', '/v1/accounts', undefined, tenant);
  expect(headers.get('ratelimit')).toMatch(/^"key";r=96;/);
});

it("shows the console's watcher the events of its own accounts, and no figures of all", async () => {
  await drained(database);
  const [bound, all] = await Promise.all([watch(url, tenant), watch(url, operator)]);
  const isReady = () => [bound, all].every(({ live }) => live.length > 1 && live.at(-1)?.broker === 'connected');
  await until('both are subscribed', isReady);
  for (const accountId of ['game1:alice', 'game2:erin', 'bank', 'game1', 'game1:bob', 'game10:dave']) {
    expect((await as(operator, post(UPDATES, { accountId, amount: 1 }))).status).toBe(200);
  }
  await until('the operator has seen all', () => all.events.length >= 6);
  await until('the tenant has seen its own', () => bound.events.length >= 2);
  const seenAt = bound.live.length;
  await until('a second passes', () => bound.live.length > seenAt + 1);
  expect(bound.events.map(({ data }) => data.accountId)).toEqual(['game1:alice', 'game1:bob']);
  for (const { figures, ledgerQueue, database } of bound.live) {
    expect({ figures, waiting: ledgerQueue?.waiting ?? null, database }).toEqual({
      ...{ figures: null, waiting: null, database: 'ok' },
    });
  }
  expect(bound.live.at(-1)?.problem).toContain('this key is bound');
  expect(all.live.some(({ figures }) => (figures?.accepted ?? 0) > 0)).toBe(true);
  for (const watcher of [bound, all]) watcher.leave();
});
