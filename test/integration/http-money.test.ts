// Transfers, holds and reversals over HTTP: through two processes at once, with retries, and to
// their entries in the ledger.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type Answer,
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  drained,
  send,
  sendPatiently,
  startApiHere,
  startWorkerHere,
  subscribe,
  until,
  verified,
} from '../support/harness.ts';

let database: Database;
let broker: ReturnType<typeof createBroker>;
let urls: string[];
let url: string;

beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
  const apis = [
    await startApiHere(database, broker, { LANES: '8' }),
    await startApiHere(database, broker, { LANES: '8' }),
  ];
  urls = apis.map((api) => api.url);
  url = urls[0] as string;
  await startWorkerHere(database, broker);
});
afterAll(cleanUp);

const post = (path: string, body: object, key?: string, to = url): Promise<Answer> =>
  sendPatiently(to, 'POST', path, body, key === undefined ? {} : { 'idempotency-key': key });
const transfer = (body: object, key?: string, to = url) => post('/v1/transfers', body, key, to);
const account = async (id: string) => (await send(url, 'GET', `/v1/accounts/${id}`)).body;
const hold = (id: string, holdId: string, amount: number, more: object = {}) =>
  post(`/v1/accounts/${id}/holds`, { holdId, amount, ...more });
const capture = (id: string, holdId: string, body: object = {}, key?: string) =>
  post(`/v1/accounts/${id}/holds/${holdId}/capture`, body, key);

async function sumOf(...ids: string[]): Promise<number> {
  const { rows } = await database.pool.query('SELECT sum(balance) FROM account WHERE account_id = ANY ($1)', [ids]);
  return Number(rows[0].sum);
}

/** So that a test waits for the clock of the database, not for its own. */
async function makeDue(id: string): Promise<void> {
  await database.pool.query(
    `UPDATE hold SET expires_at = clock_timestamp() - interval '1 second' WHERE account_id = $1 AND status = 'active'`,
    [id],
  );
}

describe('a transfer', () => {
  it('is one request whatever the order and form of its legs', async () => {
    await createAccount(url, 'form-b', 100);
    await createAccount(url, 'form-a');
    const first = await transfer({ from: 'form-b', to: 'form-a', amount: 30, reference: 'r' }, 'k');
    expect(first).toMatchObject({ status: 200, body: { transferId: first.body.legs[1].eventId } });
    const legs = [
      { accountId: 'form-a', amount: 30 },
      { accountId: 'form-b', amount: -30 },
    ];
    for (const form of [legs, legs.toReversed()]) {
      const again = await transfer({ legs: form, reference: 'r' }, 'k', urls[1]);
      expect(again.headers.get('idempotent-replayed')).toBe('true');
      expect(again.body).toEqual(first.body);
    }
    expect((await transfer({ from: 'form-b', to: 'form-a', amount: 31, reference: 'r' }, 'k')).status).toBe(422);
    expect((await send(url, 'GET', `/v1/transfers/${first.body.transferId}`)).body).toEqual({
      ...first.body,
      reference: 'r',
    });
    expect(await sumOf('form-a', 'form-b')).toBe(100);
    // An account whose last change is ahead of the clock keeps its own time, in the retry as well.
    await database.pool.query(
      `UPDATE account SET updated_at = updated_at + interval '1 hour' WHERE account_id = 'form-b'`,
    );
    const ahead = await transfer({ from: 'form-b', to: 'form-a', amount: 1 }, 'ahead');
    expect((await transfer({ from: 'form-b', to: 'form-a', amount: 1 }, 'ahead')).body).toEqual(ahead.body);
  });

  it('changes nothing when one of its accounts refuses, and says which', async () => {
    await createAccount(url, 'whole-a', 100);
    await createAccount(url, 'whole-frozen');
    await send(url, 'PATCH', '/v1/accounts/whole-frozen', { status: 'frozen' });
    await send(url, 'POST', '/v1/accounts', { id: 'whole-small', maxBalance: 5 });
    const to = (id: string, amount: number) => transfer({ from: 'whole-a', to: id, amount });
    expect((await to('whole-frozen', 1)).body).toMatchObject({ code: 'account_frozen', accountId: 'whole-frozen' });
    expect((await to('nobody', 1)).body).toMatchObject({ code: 'account_not_found', accountId: 'nobody' });
    expect((await to('whole-small', 6)).body).toMatchObject({ code: 'max_balance_exceeded', accountId: 'whole-small' });
    expect((await to('whole-small', 101)).body).toMatchObject({ code: 'max_balance_exceeded' });
    expect(await account('whole-a')).toMatchObject({ balance: 100, version: 1 });
  });

  it('never locks up nor loses anything, on a hot account in every direction, through two processes', async () => {
    const ids = Array.from({ length: 8 }, (_, index) => `hot-${index}`);
    for (const id of ids) await createAccount(url, id, 1000);
    const statuses: Record<string, number> = {};
    const one = async (index: number) => {
      const [from, to] = [
        [0, 1 + (index % 7)],
        [1 + (index % 7), 0],
        [1, 2],
        [2, 1],
      ][index % 4] as [number, number];
      const body = { from: ids[from], to: ids[to], amount: 1 + (index % 9) };
      const { status } = await transfer(body, `k${index % 900}`, urls[index % 2]);
      statuses[status] = (statuses[status] ?? 0) + 1;
    };
    for (let round = 0; round < 10; round += 1) {
      await Promise.all(Array.from({ length: 120 }, (_, index) => one(round * 120 + index)));
    }
    expect(statuses[200]).toBeGreaterThan(900);
    expect(Object.keys(statuses).filter((status) => !['200', '400', '422'].includes(status))).toEqual([]);
    expect(await sumOf(...ids)).toBe(8000);
    expect(await verified(database)).toMatchObject({ offenders: [] });
  });

  it('of several in one request is on its own', async () => {
    await createAccount(url, 'bulk-a', 10);
    await createAccount(url, 'bulk-b');
    const transfers = [
      { from: 'bulk-a', to: 'bulk-b', amount: 4, idempotencyKey: 'k' },
      { from: 'bulk-a', to: 'bulk-b', amount: 400 },
      { from: 'bulk-a', to: 'bulk-b', amount: 4, idempotencyKey: 'k' },
      { from: 'bulk-b', to: 'bulk-a', amount: 3 },
    ];
    const { body } = await post('/v1/transfers/bulk', { transfers });
    expect(body.results).toMatchObject([
      { status: 200, replayed: false },
      { status: 400, code: 'insufficient_funds', accountId: 'bulk-a' },
      { status: 200, replayed: true },
      { status: 200, legs: [{ balance: 9 }, { balance: 1 }] },
    ]);
  });

  it.each([
    [{ from: 'a', to: 'a', amount: 1 }, '/to'],
    [{ from: 'a', to: 'b', amount: 0 }, '/amount'],
    [{ from: 'a', to: 'b', amount: -1 }, '/amount'],
    [{ from: 'a', to: 'b' }, 'body'],
    [{ from: 'a', to: 'b', amount: 1, legs: [] }, '/legs'],
    [{ legs: [{ accountId: 'a', amount: 1 }] }, '/legs'],
    [{ legs: ['a', 'b'].map((accountId) => ({ accountId, amount: 1 })) }, '/legs'],
    [{ legs: [1, -1].map((amount) => ({ accountId: 'a', amount })) }, '/legs'],
    [
      { legs: Array.from({ length: 101 }, (_, index) => ({ accountId: `a${index}`, amount: index - 50 || 1 })) },
      '/legs',
    ],
    [{ from: 'a', to: 'b', amount: 1, metadata: { __proto__: null, 'Not Lower': 'x' } }, '/metadata/Not Lower'],
    [{ from: 'a', to: 'b', amount: 1, metadata: JSON.parse('{"__proto__":"x"}') }, 'body'],
    [{ from: 'a', to: 'b', amount: 1, metadata: {} }, '/metadata'],
    [{ from: 'a', to: 'b', amount: 1, metadata: { a: 'x'.repeat(1024) } }, '/metadata'],
    [{ from: 'a', to: 'b', amount: 1, metadata: { a: '\ud800' } }, '/metadata/a'],
  ])('is refused as not valid: %j', async (body, where) => {
    const answer = await transfer(body);
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
    expect(answer.body.errors.map((error: { where: string }) => error.where)).toEqual(
      expect.arrayContaining([expect.stringMatching(new RegExp(`^${where}`))]),
    );
  });
});

describe('an update', () => {
  it('takes what is there, asks for a version, and carries metadata', async () => {
    await createAccount(url, 'options', 10);
    const upTo = { accountId: 'options', amount: -25, upTo: true, metadata: { b: '2', a: '1' } };
    const first = await post('/v1/balance-updates', upTo, 'k');
    expect(first.body).toMatchObject({ amount: -10, balance: 0 });
    expect((await post('/v1/balance-updates', upTo, 'k')).body).toEqual(first.body);
    expect((await post('/v1/balance-updates', { ...upTo, amount: -1 })).body.code).toBe('insufficient_funds');
    const at = (expectedVersion: number) =>
      post('/v1/balance-updates', { accountId: 'options', amount: 1, expectedVersion });
    expect((await at(1)).body).toMatchObject({ code: 'version_mismatch', version: 2 });
    expect((await at(2)).body).toMatchObject({ version: 3 });
    await drained(database);
    const { entries } = (await send(url, 'GET', '/v1/accounts/options/entries')).body;
    expect(entries[1]).toMatchObject({ amount: -10, metadata: { a: '1', b: '2' } });
  });

  it('of an atomic request takes effect with all others or not at all, once under the key', async () => {
    await createAccount(url, 'atomic-a', 10);
    await createAccount(url, 'atomic-b');
    const atomic = (amounts: number[], key?: string) => {
      const ids = ['atomic-a', 'atomic-b', 'atomic-a'];
      const updates = amounts.map((amount, index) => ({ accountId: ids[index], amount }));
      return post('/v1/balance-updates/bulk', { updates, atomic: true }, key);
    };
    const failed = await atomic([-5, 5, -6], 'k1');
    expect(failed.body.results).toMatchObject([
      { status: 409, code: 'linked_failed' },
      { status: 409, code: 'linked_failed' },
      { status: 400, code: 'insufficient_funds', accountId: 'atomic-a', balance: 10 },
    ]);
    expect(await account('atomic-a')).toMatchObject({ balance: 10, version: 1 });
    const applied = await atomic([-5, 5, -5], 'k2');
    expect(applied.body.results).toMatchObject([{ balance: 5 }, { balance: 5 }, { balance: 0, version: 3 }]);
    const again = await atomic([-5, 5, -5], 'k2');
    expect(again.headers.get('idempotent-replayed')).toBe('true');
    expect(again.body.results.map(({ replayed, ...one }: { replayed: boolean }) => one)).toEqual(
      applied.body.results.map(({ replayed, ...one }: { replayed: boolean }) => one),
    );
    expect((await atomic([-5, 5, -6], 'k1')).body.results[2]).toMatchObject({ replayed: true, balance: 10 });
  });
});

describe('a hold', () => {
  it('keeps its money from everyone else, and is captured once, in parts', async () => {
    await createAccount(url, 'held', 100);
    await createAccount(url, 'merchant');
    expect((await hold('held', 'h', 70)).status).toBe(201);
    const debit = await post('/v1/balance-updates', { accountId: 'held', amount: -31 });
    expect(debit.body).toMatchObject({ code: 'insufficient_funds', balance: 100 });
    expect((await hold('held', 'h2', 31)).body.code).toBe('insufficient_funds');
    expect(await account('held')).toMatchObject({ balance: 100, held: 70, available: 30 });
    const part = { amount: 20, final: false, to: 'merchant' };
    const answers = await Promise.all(Array.from({ length: 10 }, () => capture('held', 'h', part, 'k')));
    expect(new Set(answers.map(({ body }) => JSON.stringify(body))).size).toBe(1);
    expect(answers[0]?.body).toMatchObject({ amount: -20, balance: 80, hold: { remaining: 50, captured: 20 } });
    const finals = await Promise.all(Array.from({ length: 10 }, () => capture('held', 'h', { amount: 30 })));
    expect(finals.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(finals.filter(({ body }) => body.code === 'hold_closed')).toHaveLength(9);
    expect(await account('held')).toMatchObject({ balance: 50, held: 0, available: 50 });
    expect(await account('merchant')).toMatchObject({ balance: 20 });
  });

  it('is placed once, whichever client retries, and belongs to its request permanently', async () => {
    await createAccount(url, 'placed', 100);
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        post('/v1/accounts/placed/holds', { holdId: 'h', amount: 60 }, undefined, urls[index % 2]),
      ),
    );
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(19);
    expect(await account('placed')).toMatchObject({ held: 60, version: 2 });
    await capture('placed', 'h');
    expect(await hold('placed', 'h', 60)).toMatchObject({ status: 200, body: { status: 'captured', remaining: 0 } });
    expect(await hold('placed', 'h', 61)).toMatchObject({ status: 409, body: { code: 'hold_exists' } });
  });

  it('that is due is free for the next debit and cannot be captured, before anything swept it', async () => {
    await createAccount(url, 'due', 100);
    await hold('due', 'h', 100, { expiresInSeconds: 60 });
    await makeDue('due');
    const debit = await post('/v1/balance-updates', { accountId: 'due', amount: -100 });
    expect(debit).toMatchObject({ status: 200, body: { balance: 0, version: 4 } });
    expect(await capture('due', 'h')).toMatchObject({
      status: 409,
      body: { code: 'hold_expired', hold: { remaining: 0 } },
    });
  });

  it('on an account that nobody changes expires by itself, with an event and an entry', async () => {
    const events = await subscribe(broker);
    await createAccount(url, 'quiet', 100);
    await hold('quiet', 'h', 40, { expiresInSeconds: 1 });
    await until('it has expired', async () => (await account('quiet')).held === 0, 5000);
    await until('its event is there', () =>
      events.some(({ body }) => body.subject === 'quiet' && body.type === 'hold.expired'),
    );
    await drained(database);
    const { entries } = (await send(url, 'GET', '/v1/accounts/quiet/entries')).body;
    expect(entries[0]).toMatchObject({
      ...{ type: 'hold.expired', amount: 0, heldChange: -40, held: 0, version: 3 },
      hold: { id: 'h', status: 'expired', remaining: 0 },
    });
  });

  it('on a frozen account is released but not captured', async () => {
    await createAccount(url, 'icy', 100);
    await hold('icy', 'h', 50);
    await send(url, 'PATCH', '/v1/accounts/icy', { status: 'frozen' });
    expect((await capture('icy', 'h')).body.code).toBe('account_frozen');
    expect((await hold('icy', 'h2', 1)).body.code).toBe('account_frozen');
    expect((await post('/v1/accounts/icy/holds/h/release', { amount: 20 })).body).toMatchObject({
      ...{ amount: 0, hold: { status: 'active', remaining: 30 } },
    });
    expect((await post('/v1/accounts/icy/holds/h/release', {})).body.hold).toMatchObject({ status: 'released' });
  });

  it('whose receiver refuses stays as it is', async () => {
    await createAccount(url, 'payer', 100);
    await send(url, 'POST', '/v1/accounts', { id: 'full', maxBalance: 5 });
    await hold('payer', 'h', 50);
    expect((await capture('payer', 'h', { to: 'full' })).body).toMatchObject({
      code: 'max_balance_exceeded',
      accountId: 'full',
    });
    expect((await send(url, 'GET', '/v1/accounts/payer/holds/h')).body).toMatchObject({
      status: 'active',
      remaining: 50,
    });
    const { holds } = (await send(url, 'GET', '/v1/accounts/payer/holds?status=active')).body;
    expect(holds).toMatchObject([{ holdId: 'h' }]);
  });

  it('of thousands that are due at once does not lock up its account, and none is declined for want of funds', async () => {
    await createAccount(url, 'many', 2500);
    await database.pool.query(
      `INSERT INTO hold (account_id, hold_id, amount, remaining, status, expires_at, client, fingerprint, created_at, updated_at)
       SELECT 'many', 'h' || n, 1, 1, 'active', clock_timestamp() + interval '1 hour', '', decode(md5('x'), 'hex'), now(), now()
       FROM generate_series(1, 2500) AS n`,
    );
    await database.pool.query(`UPDATE account SET held = 2500 WHERE account_id = 'many'`);
    await makeDue('many');
    const change = () => send(url, 'PATCH', '/v1/accounts/many', { overdraftLimit: 1 });
    expect(await change()).toMatchObject({ status: 503, body: { code: 'overloaded' } });
    let answers = 0;
    let refused = 0;
    await until('the debit is applied', async () => {
      const { status, body } = await send(url, 'POST', '/v1/balance-updates', {
        ...{ accountId: 'many', amount: -2500, upTo: true },
      });
      if (status === 200) expect(body.amount).toBe(-2500);
      answers += 1;
      if (status !== 200) {
        expect(body.code).toBe('overloaded');
        refused += 1;
      }
      return status === 200;
    });
    expect(answers - refused).toBe(1);
    expect(await account('many')).toMatchObject({ balance: 0, held: 0, version: 2502 });
  });
});

it('declines a hold with which more would be held than any number says, and leaves its neighbours alone', async () => {
  const most = Number.MAX_SAFE_INTEGER;
  await send(url, 'POST', '/v1/accounts', { id: 'big', overdraftLimit: most });
  await post('/v1/balance-updates', { accountId: 'big', amount: most });
  expect((await hold('big', 'a', most - 10)).status).toBe(201);
  expect((await hold('big', 'b', 10)).status).toBe(201);
  expect(await hold('big', 'c', 1)).toMatchObject({ status: 400, body: { code: 'balance_out_of_range' } });
  const raised = await send(url, 'PATCH', '/v1/accounts/big/holds/b', { amount: 11 });
  expect(raised).toMatchObject({ status: 400, body: { code: 'balance_out_of_range' } });
});

it('replays an atomic request of 1,000 updates as fast as it applied it', async () => {
  await createAccount(url, 'long', 0);
  const updates = Array.from({ length: 1000 }, () => ({ accountId: 'long', amount: 1 }));
  const timed = async () => {
    const startedAtMs = performance.now();
    const { status, body } = await post('/v1/balance-updates/bulk', { updates, atomic: true }, 'k');
    expect(status).toBe(200);
    expect(body.results[999]).toMatchObject({ status: 200, balance: 1000, version: 1000 });
    return performance.now() - startedAtMs;
  };
  const first = await timed();
  expect(Math.min(await timed(), await timed(), await timed())).toBeLessThan(3 * first + 100);
});

it('names in a refusal what was really too much, and the account of the key', async () => {
  await createAccount(url, 'said-b', 100);
  await createAccount(url, 'said-a');
  const { body } = await transfer({ from: 'said-b', to: 'said-a', amount: 100 }, 'k');
  expect((await transfer({ from: 'said-b', to: 'said-a', amount: 9 }, 'k')).body).toMatchObject({
    ...{ code: 'idempotency_key_reused', accountId: 'said-b' },
  });
  await post('/v1/reversals', { of: body.transferId, amount: 40 });
  await post('/v1/balance-updates', { accountId: 'said-a', amount: -60 });
  const rest = await post('/v1/reversals', { of: body.transferId }, 'rest');
  expect(rest.body.detail).toMatch(/a debit of 60\.$/);
  expect((await post('/v1/reversals', { of: body.transferId }, 'rest')).body).toEqual(rest.body);
  await send(url, 'POST', '/v1/accounts', { id: 'said-full', maxBalance: 0 });
  await hold('said-b', 'h', 40);
  const full = await capture('said-b', 'h', { to: 'said-full' }, 'full');
  expect(full.body.detail).toMatch(/with 40 it would be above/);
  expect((await capture('said-b', 'h', { to: 'said-full' }, 'full')).body).toEqual(full.body);
});

it('refuses the name __proto__ wherever it is, instead of losing it', async () => {
  const body = '{"accountId":"a","amount":1,"metadata":{"a":"b","__proto__":"c"}}';
  expect((await post('/v1/balance-updates', body as unknown as object)).body).toMatchObject({
    code: 'invalid_request',
  });
});

describe('reversals', () => {
  it('of a change together never exceed it, however many race', async () => {
    await createAccount(url, 'refunded', 100);
    const { eventId } = (await post('/v1/balance-updates', { accountId: 'refunded', amount: -90 })).body;
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        post('/v1/reversals', { of: eventId, amount: 20 }, `k${index}`, urls[index % 2]),
      ),
    );
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(4);
    expect(answers.filter(({ body }) => body.code === 'reversal_exceeds')).toHaveLength(16);
    const rest = await post('/v1/reversals', { of: eventId }, 'rest');
    expect(rest.body).toMatchObject({ reverses: eventId, legs: [{ amount: 10, balance: 100 }] });
    expect((await post('/v1/reversals', { of: eventId }, 'rest')).body).toEqual(rest.body);
    expect((await post('/v1/reversals', { of: eventId })).body.code).toBe('already_reversed');
    expect((await post('/v1/reversals', { of: rest.body.legs[0].eventId })).body.code).toBe('not_reversible');
  });

  it('give a transfer back in parts, past the limit of what its payer may hold', async () => {
    await send(url, 'POST', '/v1/accounts', { id: 'back-a', maxBalance: 100 });
    await post('/v1/balance-updates', { accountId: 'back-a', amount: 100 });
    await createAccount(url, 'back-b');
    const { transferId, legs } = (await transfer({ from: 'back-a', to: 'back-b', amount: 60 })).body;
    await post('/v1/balance-updates', { accountId: 'back-a', amount: 50 });
    expect((await post('/v1/reversals', { of: legs[1].eventId })).body.code).toBe('not_reversible');
    const part = await post('/v1/reversals', { of: transferId, amount: 25 });
    expect(part.body).toMatchObject({ reverses: transferId, legs: [{ balance: 115 }, { balance: 35 }] });
    await post('/v1/balance-updates', { accountId: 'back-b', amount: -10 });
    expect((await post('/v1/reversals', { of: transferId })).body).toMatchObject({
      code: 'insufficient_funds',
      accountId: 'back-b',
    });
    await post('/v1/balance-updates', { accountId: 'back-b', amount: 10 });
    expect((await post('/v1/reversals', { of: transferId })).body.legs).toMatchObject([
      { balance: 150 },
      { balance: 0 },
    ]);
  });
});

it('leaves a history that holds together', async () => {
  await drained(database);
  const { offenders } = await verified(database);
  const made = ['due', 'many']; // whose holds the tests themselves made due, or wrote
  expect(offenders.filter(({ accountId }) => !made.includes(accountId))).toEqual([]);
});
