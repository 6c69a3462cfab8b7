// Accounts over HTTP: created once, changed within their limits, frozen and thawed; and the history
// of each, page by page.
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
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';

const AMOUNT_MAX = Number.MAX_SAFE_INTEGER;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

let database: Database;
let url: string;

beforeAll(async () => {
  database = await createDatabase();
  const broker = createBroker();
  ({ url } = await startApiHere(database, broker));
  await startWorkerHere(database, broker);
});
afterAll(cleanUp);

const create = (body: object) => send(url, 'POST', '/v1/accounts', body);
const read = (id: string) => send(url, 'GET', `/v1/accounts/${id}`);
const change = (id: string, body: object) => send(url, 'PATCH', `/v1/accounts/${id}`, body);
const update = (accountId: string, amount: number) => send(url, 'POST', '/v1/balance-updates', { accountId, amount });
const refusal = (answer: Answer) => ({ status: answer.status, code: answer.body.code });

describe('creating an account', () => {
  it('answers 201 with its location, and 200 when it is retried', async () => {
    const first = await create({ id: 'a:b.c_d-1', overdraftLimit: 500 });
    expect(first.status).toBe(201);
    expect(first.body).toEqual({
      id: 'a:b.c_d-1',
      asset: 'UNIT',
      balance: 0,
      held: 0,
      available: 500,
      version: 0,
      overdraftLimit: 500,
      maxBalance: null,
      status: 'open',
      createdAt: expect.stringMatching(TIME),
      updatedAt: first.body.createdAt,
    });
    const location = first.headers.get('location') as string;
    expect((await send(url, 'GET', location)).body).toEqual(first.body);
    const second = await create({ id: 'a:b.c_d-1', overdraftLimit: 500 });
    expect(second).toMatchObject({ status: 200, body: first.body });
    expect(second.headers.get('location')).toBe(null);
  });

  it('is refused with another limit, and leaves the account as it was', async () => {
    const before = (await create({ id: 'fixed', overdraftLimit: 500 })).body;
    for (const body of [{ id: 'fixed', overdraftLimit: 501 }, { id: 'fixed' }]) {
      const answer = await create(body);
      expect(refusal(answer)).toEqual({ status: 409, code: 'account_exists' });
      expect(answer.body).toMatchObject({ accountId: 'fixed', detail: expect.stringContaining('500') });
    }
    expect((await read('fixed')).body).toEqual(before);
  });

  it('makes one account when many ask at once', async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => create({ id: 'crowd', overdraftLimit: 1 })));
    expect(answers.map(({ status }) => status).sort()).toEqual([...Array(19).fill(200), 201]);
    expect(new Set(answers.map(({ body }) => JSON.stringify(body))).size).toBe(1);
  });

  it('again shows the balance of today', async () => {
    await createAccount(url, 'lived', 30);
    expect(await create({ id: 'lived' })).toMatchObject({ status: 200, body: { balance: 30, version: 1 } });
  });
});

describe('changing an account', () => {
  it('raises and lowers the limit down to the present debt', async () => {
    await createAccount(url, 'debtor', 10);
    expect(refusal(await update('debtor', -11))).toEqual({ status: 400, code: 'insufficient_funds' });
    expect((await change('debtor', { overdraftLimit: 100 })).body).toMatchObject({ overdraftLimit: 100, balance: 10 });
    expect((await update('debtor', -70)).body.balance).toBe(-60);
    const before = await read('debtor');
    for (const limit of [59, 0]) {
      const answer = await change('debtor', { overdraftLimit: limit });
      expect(refusal(answer)).toEqual({ status: 409, code: 'overdraft_limit_too_low' });
    }
    expect((await read('debtor')).body).toEqual(before.body);
    expect((await change('debtor', { overdraftLimit: 60 })).status).toBe(200);
    expect(refusal(await update('debtor', -1))).toEqual({ status: 400, code: 'insufficient_funds' });
  });

  it('changes nothing of it when one half is refused', async () => {
    await create({ id: 'halves', overdraftLimit: 10 });
    await update('halves', -10);
    const answer = await change('halves', { overdraftLimit: 9, status: 'frozen' });
    expect(answer.body.code).toBe('overdraft_limit_too_low');
    expect((await read('halves')).body).toMatchObject({ overdraftLimit: 10, status: 'open' });
  });

  it('freezes and thaws: a frozen account takes no update, and keeps its balance', async () => {
    await createAccount(url, 'ice', 10);
    const frozen = await change('ice', { status: 'frozen' });
    expect(frozen).toMatchObject({ status: 200, body: { status: 'frozen', balance: 10, version: 2 } });
    for (const amount of [1, -1])
      expect(refusal(await update('ice', amount))).toEqual({ status: 409, code: 'account_frozen' });
    expect((await read('ice')).body).toEqual(frozen.body);
    expect((await change('ice', { overdraftLimit: 5 })).body).toMatchObject({ status: 'frozen', overdraftLimit: 5 });
    expect((await change('ice', { status: 'open' })).body.status).toBe('open');
    expect((await update('ice', -15)).body).toMatchObject({ balance: -5, version: 5 });
  });

  it('is a change of its own, with its entry; one that changes nothing is none', async () => {
    await createAccount(url, 'counted', 10);
    const before = (await read('counted')).body;
    const after = (await change('counted', { overdraftLimit: 7, maxBalance: 50 })).body;
    expect(after).toEqual({
      ...before,
      ...{ overdraftLimit: 7, maxBalance: 50, available: 17, version: 2, updatedAt: expect.stringMatching(TIME) },
    });
    expect(Date.parse(after.updatedAt)).toBeGreaterThanOrEqual(Date.parse(before.updatedAt));
    expect((await change('counted', { overdraftLimit: 7, status: 'open' })).body).toEqual(after);
    expect((await change('counted', { maxBalance: null })).body).toMatchObject({ maxBalance: null, version: 3 });
    const entries = async () => (await send(url, 'GET', '/v1/accounts/counted/entries')).body;
    await until('the ledger has them all', async () => (await entries()).ledgerVersion === 3);
    expect((await entries()).entries).toMatchObject([
      { type: 'account.changed', version: 3, amount: 0, balance: 10, limits: { overdraftLimit: 7, status: 'open' } },
      { type: 'account.changed', version: 2, limits: { overdraftLimit: 7, status: 'open', maxBalance: 50 } },
      { type: 'balance.credited', version: 1, amount: 10, balance: 10 },
      { type: 'account.opened', version: 0, amount: 0, limits: { overdraftLimit: 0, status: 'open' } },
    ]);
  });

  it('limits what a credit may leave, and never a debit', async () => {
    await create({ id: 'capped', maxBalance: 100 });
    expect((await update('capped', 100)).body.balance).toBe(100);
    expect(refusal(await update('capped', 1))).toEqual({ status: 400, code: 'max_balance_exceeded' });
    expect((await change('capped', { maxBalance: 20 })).body).toMatchObject({ balance: 100, maxBalance: 20 });
    expect((await update('capped', -70)).body.balance).toBe(30);
    expect(refusal(await update('capped', 1))).toEqual({ status: 400, code: 'max_balance_exceeded' });
    expect((await change('capped', { maxBalance: null })).status).toBe(200);
    expect((await update('capped', 1)).body.balance).toBe(31);
  });

  it('closes an empty account for good', async () => {
    await createAccount(url, 'ending', 10);
    expect(refusal(await change('ending', { status: 'closed' }))).toEqual({ status: 409, code: 'account_not_empty' });
    await update('ending', -10);
    expect((await change('ending', { status: 'closed' })).body).toMatchObject({ status: 'closed', version: 3 });
    expect((await change('ending', { status: 'closed' })).body).toMatchObject({ status: 'closed', version: 3 });
    for (const body of [{ status: 'open' }, { status: 'frozen' }, { overdraftLimit: 1 }]) {
      expect(refusal(await change('ending', body))).toEqual({ status: 409, code: 'account_closed' });
    }
    expect(refusal(await update('ending', 1))).toEqual({ status: 409, code: 'account_closed' });
    expect((await create({ id: 'ending' })).body).toMatchObject({ status: 'closed', version: 3 });
  });

  it('of an unknown account is refused', async () => {
    for (const answer of [await change('nobody', { status: 'frozen' }), await read('nobody')]) {
      expect(refusal(answer)).toEqual({ status: 404, code: 'account_not_found' });
    }
  });

  it('never lets a limit and a debit pass each other', async () => {
    await create({ id: 'racing', overdraftLimit: 50 });
    for (let round = 0; round < 10; round += 1) {
      await change('racing', { overdraftLimit: 50 });
      await Promise.all([update('racing', -10), change('racing', { overdraftLimit: 0 }), update('racing', -10)]);
      const { body } = await read('racing');
      expect(body.balance).toBeGreaterThanOrEqual(-body.overdraftLimit);
      if (body.balance < 0) await update('racing', -body.balance);
    }
  });
});

describe('a balance', () => {
  it('reaches 2^53 - 1 exactly, and not a unit more', async () => {
    await createAccount(url, 'rich', AMOUNT_MAX);
    const before = (await read('rich')).body;
    expect(before.balance).toBe(9007199254740991);
    const answer = await update('rich', 1);
    expect(refusal(answer)).toEqual({ status: 400, code: 'balance_out_of_range' });
    expect(answer.body).toMatchObject({ accountId: 'rich', balance: AMOUNT_MAX, version: 1 });
    expect((await read('rich')).body).toEqual(before);
    expect((await update('rich', -AMOUNT_MAX)).body.balance).toBe(0);
  });

  it('reaches -(2^53 - 1) exactly, and not a unit less', async () => {
    await create({ id: 'poor', overdraftLimit: AMOUNT_MAX });
    expect((await update('poor', -AMOUNT_MAX)).body.balance).toBe(-9007199254740991);
    expect(refusal(await update('poor', -1))).toEqual({ status: 400, code: 'balance_out_of_range' });
    expect((await update('poor', AMOUNT_MAX)).body).toMatchObject({ balance: 0, version: 2 });
  });

  it('covers a debit to the last unit', async () => {
    await createAccount(url, 'exact', 10);
    expect(refusal(await update('exact', -11))).toEqual({ status: 400, code: 'insufficient_funds' });
    expect((await update('exact', -10)).body.balance).toBe(0);
    const answer = await update('exact', -1);
    expect(answer.body).toMatchObject({ code: 'insufficient_funds', accountId: 'exact', balance: 0, version: 2 });
  });
});

describe('entries', () => {
  const page = async (id: string, query = '') => (await send(url, 'GET', `/v1/accounts/${id}/entries${query}`)).body;

  it('give every version exactly once over all pages, newest first', async () => {
    await createAccount(url, 'long', 1000);
    // So many at once may be refused as overloaded: they share the event loop with the service.
    const debit = () => until('it is taken', async () => (await update('long', -1)).status === 200);
    await Promise.all(Array.from({ length: 249 }, debit));
    await until('the ledger has them all', async () => (await page('long', '?limit=1')).ledgerVersion === 250);
    const versions: number[] = [];
    const lengths: number[] = [];
    let cursor: string | null = null;
    do {
      const { entries, nextCursor, version, ledgerVersion } = await page(
        'long',
        `?limit=100${cursor ? `&cursor=${cursor}` : ''}`,
      );
      expect({ version, ledgerVersion }).toEqual({ version: 250, ledgerVersion: 250 });
      for (const entry of entries) expect(entry.balance).toBe(entry.version === 0 ? 0 : 1001 - entry.version);
      versions.push(...entries.map((entry: { version: number }) => entry.version));
      lengths.push(entries.length);
      cursor = nextCursor;
    } while (cursor !== null);
    expect(lengths).toEqual([100, 100, 51]);
    expect(versions).toEqual(Array.from({ length: 251 }, (_, index) => 250 - index));
  });

  it('end without a further page when the last one is full', async () => {
    await createAccount(url, 'four', 1);
    for (const amount of [1, 1]) await update('four', amount);
    await until('the ledger has them all', async () => (await page('four')).ledgerVersion === 3);
    const first = await page('four', '?limit=2');
    const second = await page('four', `?limit=2&cursor=${first.nextCursor}`);
    expect(second.entries.map((entry: { version: number }) => entry.version)).toEqual([1, 0]);
    expect(second.nextCursor).toBe(null);
  });

  it('keep their pages while new ones arrive', async () => {
    await createAccount(url, 'moving', 1);
    for (const amount of [1, 1, 1]) await update('moving', amount);
    await until('the ledger has them all', async () => (await page('moving')).ledgerVersion === 4);
    const first = await page('moving', '?limit=2');
    await update('moving', 1);
    await until('the ledger has the new one', async () => (await page('moving')).ledgerVersion === 5);
    const second = await page('moving', `?limit=2&cursor=${first.nextCursor}`);
    expect(second.entries.map((entry: { version: number }) => entry.version)).toEqual([2, 1]);
  });

  it('show by version and ledgerVersion what is still on its way', async () => {
    const alone = await createDatabase();
    const api = await startApiHere(alone, createBroker(), { RELAY: 'off' });
    await createAccount(api.url, 'waiting', 10);
    const { body } = await send(api.url, 'GET', '/v1/accounts/waiting/entries');
    expect(body).toEqual({ accountId: 'waiting', version: 1, ledgerVersion: null, entries: [], nextCursor: null });
  });

  it('of an unknown account are refused, of a new one its opening', async () => {
    expect(refusal(await send(url, 'GET', '/v1/accounts/nobody/entries'))).toEqual({
      status: 404,
      code: 'account_not_found',
    });
    await createAccount(url, 'fresh');
    await until('the ledger has it', async () => (await page('fresh')).ledgerVersion === 0);
    expect(await page('fresh')).toMatchObject({ version: 0, entries: [{ type: 'account.opened' }], nextCursor: null });
  });
});

it('and the ledger proves it all', async () => {
  expect(await drained(database)).toMatchObject({ offendingAccounts: 0, pendingChanges: 0 });
});
