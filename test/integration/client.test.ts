// The client against the real service, through a proxy that breaks connections at the worst
// moments.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  BalanceError,
  type Client,
  type ClientOptions,
  createClient,
  type EntryFilter,
} from '../../src/client/client.ts';
import type {
  Account,
  AppliedUpdate,
  CaptureAnswer,
  EntriesPage,
  Entry,
  Hold,
  HoldAnswer,
  HoldsPage,
  PastTransfer,
  Reversal,
  Transfer,
  TransferLeg,
} from '../../src/shared/contract.ts';
import { type ProxiedConnection, startProxy } from '../chaos/proxy.ts';
import {
  cleanUp,
  createApiKey,
  createBroker,
  createDatabase,
  drained,
  environmentOf,
  insertAccounts,
  onCleanUp,
  send,
  spawnProcess,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';

let database: Awaited<ReturnType<typeof createDatabase>>;
let broker: ReturnType<typeof createBroker>;
let url: string;
let client: Client;

beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
  ({ url } = await startApiHere(database, broker));
  await startWorkerHere(database, broker);
  client = createClient({ url });
});
afterAll(cleanUp);

/** A client that reaches the service through a proxy of its own. */
async function clientThrough(
  onConnection: (connection: ProxiedConnection, count: number) => void,
  options: Partial<ClientOptions> = {},
) {
  let count = 0;
  const proxy = await startProxy({ port: Number(new URL(url).port) }, (connection) => {
    count += 1;
    onConnection(connection, count);
  });
  onCleanUp(() => proxy.close());
  return { proxy, through: createClient({ url: `http://127.0.0.1:${proxy.port}`, ...options }), count: () => count };
}

/** A server that answers what a gateway in front of the service may answer. */
async function gateway(...answers: { status: number; headers?: Record<string, string>; body?: string }[]) {
  let requests = 0;
  const server = createServer((_request, response) => {
    const { status, headers = {}, body = '<html>' } = answers[Math.min(requests, answers.length - 1)]!;
    requests += 1;
    response.writeHead(status, headers).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onCleanUp(async () => server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests: () => requests };
}

/** The failure of a call that has to fail. */
async function failureOf(call: Promise<unknown>): Promise<BalanceError> {
  const error = await call.then(
    () => expect.unreachable('the call succeeded'),
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(BalanceError);
  return error as BalanceError;
}

const swallowAnswer = (connection: ProxiedConnection) =>
  connection.watch('toClient', () => {
    connection.cut();
    return true;
  });

const loseRequest = (connection: ProxiedConnection) =>
  connection.watch('toServer', () => {
    connection.cut();
    return true;
  });

/** Creates accounts with a balance each. */
async function accountsWith(balances: Record<string, number>): Promise<void> {
  for (const [id, amount] of Object.entries(balances)) {
    await client.createAccount({ id });
    if (amount > 0) await client.updateBalance({ accountId: id, amount });
  }
}

const balancesOf = async (...ids: string[]) =>
  Promise.all(ids.map(async (id) => (await client.readAccount(id)).balance));

describe('each call', () => {
  /**
   * The members of an answer and their types: the compiler holds the names to the published types.
   */
  const account: Record<keyof Account, string> = {
    id: 'string',
    asset: 'string',
    balance: 'number',
    held: 'number',
    available: 'number',
    version: 'number',
    overdraftLimit: 'number',
    maxBalance: 'object', // null
    status: 'string',
    createdAt: 'string',
    updatedAt: 'string',
  };
  const applied: Record<keyof AppliedUpdate, string> = {
    accountId: 'string',
    amount: 'number',
    balance: 'number',
    version: 'number',
    eventId: 'string',
    createdAt: 'string',
  };
  const entriesPage: Record<keyof EntriesPage, string> = {
    accountId: 'string',
    version: 'number',
    ledgerVersion: 'number',
    entries: 'object',
    nextCursor: 'string',
  };
  /** Without what an update like these never has. */
  const entry: Record<Exclude<keyof Entry, 'metadata' | 'transferId' | 'reverses' | 'hold' | 'limits'>, string> = {
    eventId: 'string',
    type: 'string',
    version: 'number',
    epoch: 'number',
    previousEpoch: 'number',
    asset: 'string',
    amount: 'number',
    heldChange: 'number',
    balance: 'number',
    held: 'number',
    createdAt: 'string',
    recordedAt: 'string',
    reference: 'string',
    actor: 'string',
  };
  const leg: Record<keyof TransferLeg, string> = {
    accountId: 'string',
    amount: 'number',
    balance: 'number',
    version: 'number',
    eventId: 'string',
  };
  const transfer: Record<keyof Transfer, string> = { transferId: 'string', legs: 'object', createdAt: 'string' };
  /** Without `actor`, as the service asks for no keys here. */
  const pastTransfer: Record<Exclude<keyof PastTransfer, 'actor'>, string> = {
    ...transfer,
    reference: 'string',
    metadata: 'object',
    reverses: 'string',
  };
  const reversal: Record<keyof Reversal, string> = {
    reverses: 'string',
    transferId: 'string',
    legs: 'object',
    createdAt: 'string',
  };
  const hold: Record<keyof Hold, string> = {
    accountId: 'string',
    holdId: 'string',
    status: 'string',
    amount: 'number',
    captured: 'number',
    remaining: 'number',
    expiresAt: 'object', // null
    createdAt: 'string',
    updatedAt: 'string',
  };
  const holdsPage: Record<keyof HoldsPage, string> = { holds: 'object', nextCursor: 'string' };
  const holdAnswer: Record<keyof HoldAnswer, string> = { ...applied, hold: 'object' };
  const captureAnswer: Record<keyof CaptureAnswer, string> = { ...holdAnswer, transferId: 'string', to: 'object' };
  const receipt = { idempotencyKey: 'string', replayed: 'boolean' };
  const typesOf = (answer: object) =>
    Object.fromEntries(Object.entries(answer).map(([name, value]) => [name, typeof value]));

  it('answers exactly what its type promises', async () => {
    expect(typesOf(await client.createAccount({ id: 'shape', overdraftLimit: 5 }))).toEqual(account);
    expect(typesOf(await client.changeAccount('shape', { overdraftLimit: 10, status: 'open' }))).toEqual(account);
    expect(typesOf(await client.readAccount('shape'))).toEqual(account);
    const { idempotencyKey, replayed, ...update } = await client.updateBalance({ accountId: 'shape', amount: 1 });
    expect(typesOf(update)).toEqual(applied);
    expect([typeof idempotencyKey, replayed]).toEqual(['string', false]);
    const [first] = await client.updateBalances([{ accountId: 'shape', amount: 2, reference: 'r' }]);
    expect(typesOf(first!)).toEqual({ ok: 'boolean', idempotencyKey: 'string', replayed: 'boolean', ...applied });
    await database.pool.query(
      `SELECT apply_changes(ARRAY['shape'], ARRAY[1], ARRAY[3::bigint], ARRAY['r'], NULL, ARRAY['shop']${', NULL'.repeat(19)})`,
    );
    await until('the ledger has caught up', async () => (await client.readEntries('shape')).ledgerVersion === 4);
    const page = await client.readEntries('shape', { limit: 1 });
    expect(typesOf(page)).toEqual(entriesPage);
    expect(typesOf(page.entries[0]!)).toEqual(entry);
    const last = await client.readEntries('shape', { cursor: page.nextCursor! });
    expect(last).toMatchObject({
      nextCursor: null,
      entries: [{ version: 3 }, { version: 2 }, { version: 1 }, { version: 0 }],
    });
  });

  it('about transfers and holds answers exactly what its type promises', async () => {
    await accountsWith({ 'form:a': 100, 'form:b': 0 });
    const notes = { reference: 'r', metadata: { order: '17' } };
    const moved = await client.transfer({ from: 'form:a', to: 'form:b', amount: 10 });
    expect(typesOf(moved)).toEqual({ ...transfer, ...receipt });
    expect(moved.legs.map(typesOf)).toEqual([leg, leg]);
    const [result] = await client.transfers([{ from: 'form:a', to: 'form:b', amount: 1 }]);
    expect(typesOf(result!)).toEqual({ ok: 'boolean', ...transfer, ...receipt });
    const reversed = await client.reverse(moved, notes);
    expect(typesOf(reversed)).toEqual({ ...reversal, ...receipt });
    expect(reversed.legs.map(typesOf)).toEqual([leg, leg]);
    expect(typesOf(await client.readTransfer(reversed.transferId!))).toEqual(pastTransfer);

    expect(typesOf(await client.placeHold('form:a', { holdId: 'h', amount: 50 }))).toEqual(hold);
    expect(typesOf(await client.readHold('form:a', 'h'))).toEqual(hold);
    const page = await client.listHolds('form:a', { limit: 1 });
    expect([typesOf(page), ...page.holds.map(typesOf)]).toEqual([holdsPage, hold]);
    const changed = await client.changeHold('form:a', 'h', { amount: 60 });
    expect([typesOf(changed), typesOf(changed.hold)]).toEqual([{ ...holdAnswer, ...receipt }, hold]);
    const released = await client.releaseHold('form:a', 'h', { amount: 10, ...notes });
    expect([typesOf(released), typesOf(released.hold)]).toEqual([{ ...holdAnswer, ...receipt }, hold]);
    const captured = await client.captureHold('form:a', 'h', { to: 'form:b', ...notes });
    expect(typesOf(captured)).toEqual({ ...captureAnswer, ...receipt });
    expect([typesOf(captured.hold), typesOf(captured.to!)]).toEqual([hold, leg]);
  });

  it('may be made again with the same result', async () => {
    const first = await client.createAccount({ id: 'again' });
    expect(await client.createAccount({ id: 'again' })).toEqual(first);
    const update = { accountId: 'again', amount: 5 };
    const idempotencyKey = ' "order" \\ 1 ';
    const applied = await client.updateBalance(update, { idempotencyKey });
    expect(await client.updateBalance(update, { idempotencyKey })).toEqual({ ...applied, replayed: true });
    expect(await client.updateBalances([{ ...update, idempotencyKey }])).toEqual([
      { ok: true, ...applied, replayed: true },
    ]);
  });

  it('looks back: past balances, filtered entries, accounts by prefix', async () => {
    await client.createAccount({ id: 'look:back' });
    await client.createAccount({ id: 'look:too' });
    const changes = [];
    for (const amount of [5, -2, 7]) changes.push(await client.updateBalance({ accountId: 'look:back', amount }));
    await drained(database);
    const [, second] = changes;
    expect(await client.readPastBalance('look:back', { version: 2 })).toEqual({
      accountId: 'look:back',
      version: 2,
      balance: 3,
      held: 0,
      createdAt: second?.createdAt,
    });
    const now = await client.readPastBalance('look:back', { at: new Date(changes.at(-1)?.createdAt as string) });
    expect(now).toMatchObject({ version: 3, balance: 10 });
    const debits = [];
    for await (const { version } of client.entries('look:back', { direction: 'debit' })) debits.push(version);
    expect(debits).toEqual([2]);
    const { transferId } = await client.transfer({ from: 'look:back', to: 'look:too', amount: 1, reference: 'rent' });
    await client.placeHold('look:back', { holdId: 'seat', amount: 1 });
    await client.releaseHold('look:back', 'seat');
    await drained(database);
    const found = async (filter: EntryFilter) =>
      (await client.readEntries('look:back', filter)).entries.map(({ version }) => version);
    expect(await found({ transferId })).toEqual([4]);
    expect(await found({ reference: 'rent' })).toEqual([4]);
    expect(await found({ holdId: 'seat' })).toEqual([6, 5]);
    expect(await found({ type: 'hold.placed' })).toEqual([5]);
    const from = new Date(second?.createdAt as string);
    const page = await client.readEntries('look:back', { from, direction: 'credit', limit: 1 });
    expect(page.entries.map(({ version }) => version)).toEqual([3]);
    const { accounts, nextCursor } = await client.listAccounts({ prefix: 'look:' });
    expect({ ids: accounts.map(({ id }) => id), nextCursor }).toEqual({
      ids: ['look:back', 'look:too'],
      nextCursor: null,
    });
    const failure = await failureOf(client.readPastBalance('look:back', { version: 7 }));
    expect(failure.code).toBe('invalid_request');
    await expect(client.readEntries('look:back', { to: new Date(Number.NaN) })).rejects.toThrow(TypeError);
  });

  it('reads the whole ledger, page by page', async () => {
    await insertAccounts(database, 'long');
    for (const count of [1000, 500]) {
      const updates = Array.from({ length: count }, () => ({ accountId: 'long', amount: 1 }));
      expect((await client.updateBalances(updates)).every(({ ok }) => ok)).toBe(true);
    }
    await drained(database);
    const versions: number[] = [];
    for await (const { version } of client.entries('long')) versions.push(version);
    expect(versions).toEqual(Array.from({ length: 1501 }, (_, index) => 1500 - index));
  });
});

describe('a refusal', () => {
  it('is thrown with its code and what belongs to it', async () => {
    await client.createAccount({ id: 'poor' });
    const declined = await failureOf(client.updateBalance({ accountId: 'poor', amount: -1 }, { idempotencyKey: 'k' }));
    expect(declined).toMatchObject({
      code: 'insufficient_funds',
      status: 400,
      idempotencyKey: 'k',
      accountId: 'poor',
      balance: 0,
      version: 0,
      message: expect.stringContaining('does not cover a debit of 1'),
    });
    expect(await failureOf(client.createAccount({ id: 'poor', overdraftLimit: 1 }))).toMatchObject({
      code: 'account_exists',
      idempotencyKey: undefined,
    });
    const invalid = await failureOf(client.updateBalance({ accountId: 'poor', amount: 0 }));
    expect(invalid.code).toBe('invalid_request');
    expect(invalid.errors).toEqual([{ where: '/amount', what: expect.any(String) }]);
    expect(invalid.message).toContain('/amount must not be 0');
  });

  it.each(['', '.', '..'])('of the id %j, which a URL cannot carry, is clear', async (id) => {
    const calls = [
      client.readAccount(id),
      client.readHold('poor', id),
      client.captureHold(id, 'h'),
      client.readTransfer(id),
    ];
    for (const call of calls) expect(await failureOf(call)).toMatchObject({ code: 'invalid_request' });
  });

  it('has what belongs to transfers, holds and reversals', async () => {
    await accountsWith({ 'no:a': 100, 'no:b': 0, 'no:c': 0 });
    await client.createAccount({ id: 'no:points', asset: 'POINTS' });
    const tooMuch = client.transfer({ from: 'no:a', to: 'no:b', amount: 101 }, { idempotencyKey: 'k' });
    expect(await failureOf(tooMuch)).toMatchObject({
      code: 'insufficient_funds',
      status: 400,
      idempotencyKey: 'k',
      accountId: 'no:a',
      balance: 100,
      version: 1,
    });
    expect(await failureOf(client.transfer({ from: 'no:a', to: 'no:points', amount: 1 }))).toMatchObject({
      code: 'asset_mismatch',
      accountId: 'no:points',
      idempotencyKey: expect.any(String),
    });
    expect((await failureOf(client.transfer({ from: 'no:a', to: 'no:a', amount: 1 }))).errors).toMatchObject([
      { where: '/to' },
    ]);
    expect(
      await failureOf(client.transfer({ from: 'no:a', to: 'no:b', amount: 1 }, { idempotencyKey: 'é' })),
    ).toMatchObject({ code: 'invalid_request', errors: [{ where: 'idempotencyKey' }] });
    expect((await failureOf(client.readTransfer('no:a:77:mwtowow0'))).code).toBe('transfer_not_found');

    expect(await failureOf(client.placeHold('no:a', { holdId: 'h', amount: 101 }))).toMatchObject({
      code: 'insufficient_funds',
      accountId: 'no:a',
      balance: 100,
      idempotencyKey: undefined,
    });
    await client.placeHold('no:a', { holdId: 'h', amount: 30 });
    expect((await failureOf(client.placeHold('no:a', { holdId: 'h', amount: 31 }))).code).toBe('hold_exists');
    expect((await failureOf(client.readHold('no:a', 'other'))).code).toBe('hold_not_found');
    expect((await failureOf(client.captureHold('no:a', 'h', { amount: 31 }))).code).toBe('hold_amount_exceeded');
    expect((await failureOf(client.changeHold('no:a', 'h', { amount: 101 }))).code).toBe('insufficient_funds');
    const { hold } = await client.releaseHold('no:a', 'h');
    expect(await failureOf(client.captureHold('no:a', 'h', {}, { idempotencyKey: 'k2' }))).toMatchObject({
      code: 'hold_closed',
      status: 409,
      idempotencyKey: 'k2',
      accountId: 'no:a',
      hold,
    });

    const { legs, ...moved } = await client.transfer({ from: 'no:a', to: 'no:b', amount: 10 });
    expect((await failureOf(client.reverse(legs[0]!.eventId, { amount: 11 }))).code).toBe('reversal_exceeds');
    expect((await failureOf(client.reverse(legs[1]!.eventId))).code).toBe('not_reversible');
    await client.transfer({ from: 'no:b', to: 'no:c', amount: 10 });
    const spent = await failureOf(client.reverse({ ...moved, legs }));
    expect(spent).toMatchObject({ code: 'insufficient_funds', accountId: 'no:b', balance: 0 });
  });

  it.each([
    ['1,001 updates', Array.from({ length: 1001 }, () => ({ accountId: 'poor', amount: 1 })), /1 to 1000.*not 1001/],
    ['no update', [], /1 to 1000.*not 0/],
    ['a key that no header can carry', [{ accountId: 'poor', amount: 1, idempotencyKey: 'é' }], /\/0\/idempotencyKey/],
  ])('of %s comes before anything is sent', async (_, updates, message) => {
    const { through, count } = await clientThrough(() => {});
    const error = await failureOf(through.updateBalances(updates));
    expect(error.code).toBe('invalid_request');
    expect(error.message).toMatch(message);
    expect(count()).toBe(0);
  });

  it('is no reason to try again, nor is what a gateway refuses', async () => {
    const { url, requests } = await gateway({ status: 404 });
    const error = await failureOf(createClient({ url }).updateBalance({ accountId: 'a', amount: 1 }));
    expect(error).toMatchObject({ code: 'unexpected_answer', status: 404 });
    expect(requests()).toBe(1);
  });

  it('of a redirect keeps the token from going elsewhere', async () => {
    const elsewhere = await gateway({ status: 200 });
    const { url } = await gateway({ status: 307, headers: { location: elsewhere.url } });
    const error = await failureOf(createClient({ url, token: 'secret' }).readAccount('a'));
    expect(error).toMatchObject({ code: 'unexpected_answer', status: 307 });
    expect(elsewhere.requests()).toBe(0);
  });
});

describe('an update', () => {
  it('takes effect once when the connection breaks before the answer arrives, three times in a row', async () => {
    await insertAccounts(database, 'broken');
    const { through, count } = await clientThrough((connection, count) => {
      if (count <= 3) swallowAnswer(connection);
    });
    const applied = await through.updateBalance({ accountId: 'broken', amount: 7 });
    expect(applied).toMatchObject({ balance: 7, version: 1, replayed: true });
    expect(count()).toBe(4);
    expect(await client.readAccount('broken')).toMatchObject({ balance: 7, version: 1 });
  });

  it('takes effect once when the connection breaks before the request arrives', async () => {
    await insertAccounts(database, 'cut');
    const { through } = await clientThrough((connection, count) => {
      if (count === 1) loseRequest(connection);
    });
    expect(await through.updateBalance({ accountId: 'cut', amount: 7 })).toMatchObject({ version: 1, replayed: false });
  });

  it('takes effect once when an answer is too late, or comes in half', async () => {
    await insertAccounts(database, 'late');
    const { through, count } = await clientThrough(
      (connection, count) => {
        if (count === 1) connection.setMode('toClient', 'drop');
        if (count === 2) {
          connection.watch('toClient', (chunk) => {
            connection.send('toClient', chunk.subarray(0, -10));
            connection.halfClose('toClient');
            return true;
          });
        }
      },
      { attemptTimeoutMs: 300 },
    );
    expect(await through.updateBalance({ accountId: 'late', amount: 7 })).toMatchObject({ version: 1, replayed: true });
    expect(count()).toBe(3);
  });

  it('takes effect once when a gateway lost the answer', async () => {
    const answer = {
      status: 200,
      headers: { 'idempotent-replayed': 'true' },
      body: JSON.stringify({ eventId: 'a:1', version: 1 }),
    };
    const { url, requests } = await gateway({ status: 502 }, { status: 200 }, { status: 504 }, answer);
    expect(await createClient({ url }).updateBalance({ accountId: 'a', amount: 1 })).toMatchObject({ replayed: true });
    expect(requests()).toBe(4);
  });

  it('whose outcome stays unknown until the deadline says so with its key, and can be settled later', async () => {
    await insertAccounts(database, 'unknown');
    const { through, proxy } = await clientThrough(swallowAnswer);
    const startedAtMs = performance.now();
    const update = { accountId: 'unknown', amount: 7 };
    const error = await failureOf(through.updateBalance(update, { deadlineMs: 1000 }));
    expect(performance.now() - startedAtMs).toBeLessThan(15_000);
    expect(error).toMatchObject({ code: 'outcome_unknown', accountId: 'unknown', idempotencyKey: expect.any(String) });
    expect(error.message).toContain('Retry it with its key');
    expect(error.cause).toMatchObject({ code: 'unreachable' });
    await proxy.close();
    const { idempotencyKey } = error;
    expect(await client.updateBalance(update, { idempotencyKey })).toMatchObject({ version: 1, replayed: true });
  });

  it('that a later refusal does not settle stays unknown', async () => {
    await client.createAccount({ id: 'frozen' });
    const { through } = await clientThrough((connection, count) => {
      if (count === 1) loseRequest(connection);
    });
    await client.changeAccount('frozen', { status: 'frozen' });
    const error = await failureOf(through.updateBalance({ accountId: 'frozen', amount: 1 }));
    expect(error).toMatchObject({ code: 'outcome_unknown', cause: { code: 'account_frozen' } });
  });

  it('of an account that was closed meanwhile cannot have been applied, nor a transfer between assets', async () => {
    await accountsWith({ 'shut:a': 0, 'shut:b': 5 });
    await client.createAccount({ id: 'shut:points', asset: 'POINTS' });
    await client.changeAccount('shut:a', { status: 'closed' });
    const calls: [string, (client: Client) => Promise<unknown>][] = [
      ['account_closed', ({ updateBalance }) => updateBalance({ accountId: 'shut:a', amount: 1 })],
      ['account_closed', ({ transfer }) => transfer({ from: 'shut:b', to: 'shut:a', amount: 1 })],
      ['account_closed', ({ placeHold }) => placeHold('shut:a', { holdId: 'h', amount: 1 })],
      ['asset_mismatch', ({ transfer }) => transfer({ from: 'shut:b', to: 'shut:points', amount: 1 })],
    ];
    for (const [code, call] of calls) {
      const { through } = await clientThrough((connection, count) => {
        if (count === 1) loseRequest(connection);
      });
      expect(await failureOf(call(through))).toMatchObject({ code });
    }
  });

  it('may carry metadata, depend on the version, and take as much as there is', async () => {
    await accountsWith({ most: 10 });
    const metadata = { order: '17', channel: 'web' };
    const update = { accountId: 'most', amount: -15, upTo: true, expectedVersion: 1, metadata };
    expect(await client.updateBalance(update)).toMatchObject({ amount: -10, balance: 0, version: 2 });
    expect(await failureOf(client.updateBalance(update))).toMatchObject({
      code: 'version_mismatch',
      status: 409,
      version: 2,
    });
    const [late, none] = await client.updateBalances([update, { ...update, expectedVersion: 2 }]);
    expect(late).toMatchObject({ ok: false, error: { code: 'version_mismatch' } });
    expect(none).toMatchObject({ ok: false, error: { code: 'insufficient_funds', balance: 0 } });
    await drained(database);
    expect((await client.readEntries('most', { limit: 1 })).entries).toMatchObject([{ version: 2, metadata }]);
  });

  it('that was declined on a connection that broke is declined', async () => {
    await insertAccounts(database, 'declined');
    const { through } = await clientThrough((connection, count) => {
      if (count === 1) swallowAnswer(connection);
    });
    const error = await failureOf(through.updateBalance({ accountId: 'declined', amount: -1 }));
    expect(error).toMatchObject({ code: 'insufficient_funds', balance: 0 });
  });

  it('that was declined on a connection that broke is declined, whatever for, where its key remembers it', async () => {
    await accountsWith({ recalled: 20 });
    const { eventId } = await client.updateBalance({ accountId: 'recalled', amount: -10 });
    await client.placeHold('recalled', { holdId: 'h', amount: 5 });
    const calls = {
      version_mismatch: ({ updateBalance }: Client) =>
        updateBalance({ accountId: 'recalled', amount: 1, expectedVersion: 1 }),
      hold_amount_exceeded: ({ captureHold }: Client) => captureHold('recalled', 'h', { amount: 6 }),
      reversal_exceeds: ({ reverse }: Client) => reverse(eventId, { amount: 11 }),
    };
    for (const [code, call] of Object.entries(calls)) {
      const { through } = await clientThrough((connection, count) => {
        if (count === 1) swallowAnswer(connection);
      });
      expect(await failureOf(call(through))).toMatchObject({ code, accountId: 'recalled' });
    }
  });

  // A reason may be the failure of something else that the caller does: it is no failure of ours.
  const elsewhere = new BalanceError('insufficient_funds', 'another call was declined');
  const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED', syscall: 'connect' });

  it.each([
    ['of its own', new Error('the user left')],
    ['of another connection', refused],
    ['of another call', elsewhere],
  ])(
    'aborted after it was sent, for a reason %s, is unknown, with its key; before, it is just aborted',
    async (kind, reason) => {
      const accountId = `aborted ${kind}`.replaceAll(' ', '-');
      await insertAccounts(database, accountId);
      const sent = new AbortController();
      const { through } = await clientThrough((connection, count) => {
        if (count > 1) return;
        connection.setMode('toClient', 'drop');
        void until('the answer is on its way', () => connection.dropped('toClient') > 0).then(() => sent.abort(reason));
      });
      const update = { accountId, amount: 1 };
      const unknown = await failureOf(through.updateBalance(update, { signal: sent.signal }));
      expect(unknown).toMatchObject({ code: 'outcome_unknown', cause: { code: 'aborted' } });
      expect((unknown.cause as BalanceError).cause).toBe(reason);

      const error = await failureOf(through.updateBalance(update, { signal: AbortSignal.abort() }));
      expect(error).toMatchObject({ code: 'aborted', cause: { name: 'AbortError' } });
      expect(await client.readAccount(accountId)).toMatchObject({ version: 1 });
    },
  );

  it('to a port where nothing listens is known to have changed nothing', async () => {
    const { proxy, through } = await clientThrough(() => {});
    await proxy.close();
    const error = await failureOf(through.updateBalance({ accountId: 'a', amount: 1 }, { deadlineMs: 500 }));
    expect(error).toMatchObject({ code: 'unreachable', idempotencyKey: expect.any(String) });
    expect(error.message).toContain('ECONNREFUSED');
  });

  it('of a crowd takes effect once each while the API is killed and started again', async () => {
    await insertAccounts(database, 'killed');
    const { proxy, through } = await clientThrough(() => {}, { connectionsMax: 20 });
    await proxy.close(); // its port is free, and ours for the API
    const environment = environmentOf(database, broker, {
      PORT: String(proxy.port),
      RELAY: 'off',
      LOG_LEVEL: 'silent',
    });
    let api = await spawnProcess('api', environment);
    let answered = 0;
    const updates = Array.from({ length: 300 }, async () => {
      const applied = await through.updateBalance({ accountId: 'killed', amount: 1 });
      answered += 1;
      return applied;
    });
    const all = Promise.all(updates);
    for (const threshold of [30, 150]) {
      await until(`${threshold} are answered`, () => answered >= threshold);
      await api.kill();
      api = await spawnProcess('api', environment);
    }
    const versions = (await all).map(({ version }) => version).sort((one, other) => one - other);
    expect(versions).toEqual(Array.from({ length: 300 }, (_, index) => index + 1));
    expect(await client.readAccount('killed')).toMatchObject({ balance: 300, version: 300 });
  });
});

describe('a transfer', () => {
  it('moves the money once when the connection breaks before the answer arrives', async () => {
    await accountsWith({ 'move:a': 100, 'move:b': 0 });
    const { through, count } = await clientThrough((connection, count) => {
      if (count <= 2) swallowAnswer(connection);
    });
    const moved = await through.transfer({ from: 'move:a', to: 'move:b', amount: 30, reference: 'rent' });
    expect(moved).toMatchObject({
      replayed: true,
      legs: [
        { accountId: 'move:a', amount: -30, balance: 70, version: 2, eventId: moved.transferId },
        { accountId: 'move:b', amount: 30, balance: 30, version: 1 },
      ],
    });
    expect(count()).toBe(3);
    expect(await balancesOf('move:a', 'move:b')).toEqual([70, 30]);
    const { idempotencyKey, replayed, ...answer } = moved;
    expect(await client.readTransfer(moved.transferId)).toEqual({ ...answer, reference: 'rent' });
  });

  it('has one effect under a key of the caller, and several legs', async () => {
    await accountsWith({ 'split:a': 100, 'split:b': 0, 'split:c': 0 });
    const legs = [
      { accountId: 'split:c', amount: 60 },
      { accountId: 'split:a', amount: -100 },
      { accountId: 'split:b', amount: 40 },
    ];
    const first = await client.transfer({ legs }, { idempotencyKey: 'split' });
    expect(await client.transfer({ legs: legs.toReversed() }, { idempotencyKey: 'split' })).toEqual({
      ...first,
      replayed: true,
    });
    expect(
      await failureOf(client.transfer({ from: 'split:a', to: 'split:b', amount: 1 }, { idempotencyKey: 'split' })),
    ).toMatchObject({
      code: 'idempotency_key_reused',
    });
    expect(await balancesOf('split:a', 'split:b', 'split:c')).toEqual([0, 40, 60]);
  });

  it('whose outcome stays unknown can be settled under its key; aborted before, it is not sent', async () => {
    await accountsWith({ 'doubt:a': 9, 'doubt:b': 0 });
    const { through, proxy } = await clientThrough(swallowAnswer);
    const transfer = { from: 'doubt:a', to: 'doubt:b', amount: 9 };
    const error = await failureOf(through.transfer(transfer, { deadlineMs: 500 }));
    expect(error).toMatchObject({ code: 'outcome_unknown', cause: { code: 'unreachable' } });
    await proxy.close();
    const { idempotencyKey } = error;
    expect(await client.transfer(transfer, { idempotencyKey })).toMatchObject({ idempotencyKey, replayed: true });
    expect((await failureOf(client.transfer(transfer, { signal: AbortSignal.abort() }))).code).toBe('aborted');
    expect(await balancesOf('doubt:a', 'doubt:b')).toEqual([0, 9]);
  });

  it('in bulk has a result of its own, and survives a lost answer', async () => {
    await accountsWith({ 'many:a': 10, 'many:b': 0 });
    const { through } = await clientThrough((connection, count) => {
      if (count === 1) swallowAnswer(connection);
    });
    const transfer = { from: 'many:a', to: 'many:b' };
    const results = await through.transfers([
      { ...transfer, amount: 7 },
      { ...transfer, amount: 4, idempotencyKey: 'too-much' },
      { ...transfer, amount: 3 },
    ]);
    expect(results).toMatchObject([
      { ok: true, replayed: true, legs: [{ balance: 3 }, { balance: 7 }] },
      { ok: false, error: { code: 'insufficient_funds', accountId: 'many:a', balance: 3, idempotencyKey: 'too-much' } },
      { ok: true, replayed: true, legs: [{ balance: 0 }, { balance: 10 }] },
    ]);
    expect(await failureOf(client.transfers([]))).toMatchObject({ code: 'invalid_request' });
  });
});

describe('a hold', () => {
  it('is captured in part, and then for the rest', async () => {
    await accountsWith({ 'stay:a': 100, 'stay:b': 0 });
    const placed = await client.placeHold('stay:a', { holdId: 'room-1', amount: 80, expiresInSeconds: 900 });
    expect(placed).toMatchObject({ status: 'active', amount: 80, captured: 0, remaining: 80 });
    expect(await client.readAccount('stay:a')).toMatchObject({ balance: 100, held: 80, available: 20 });
    const part = await client.captureHold('stay:a', 'room-1', { amount: 30, final: false });
    expect(part).toMatchObject({
      amount: -30,
      balance: 70,
      replayed: false,
      hold: { status: 'active', captured: 30, remaining: 50 },
    });
    const rest = await client.captureHold('stay:a', 'room-1', { amount: 40, to: 'stay:b' });
    expect(rest).toMatchObject({
      amount: -40,
      balance: 30,
      transferId: rest.eventId,
      to: { accountId: 'stay:b', balance: 40 },
      hold: { status: 'captured', captured: 70, remaining: 0 },
    });
    expect(await client.readAccount('stay:a')).toMatchObject({ balance: 30, held: 0, available: 30 });
  });

  it('is changed, released in part, and listed', async () => {
    await accountsWith({ list: 100 });
    for (const holdId of ['a', 'b', 'c']) await client.placeHold('list', { holdId, amount: 10 });
    const longer = await client.changeHold('list', 'a', { amount: 30, expiresInSeconds: 60 });
    expect(longer.hold).toMatchObject({ amount: 30, remaining: 30, expiresAt: expect.any(String) });
    const forever = await client.changeHold('list', 'a', { expiresInSeconds: null });
    expect(forever.hold).toMatchObject({ amount: 30, expiresAt: null });
    const less = await client.releaseHold('list', 'a', { amount: 5 });
    expect(less).toMatchObject({ amount: 0, balance: 100, hold: { status: 'active', remaining: 25 } });
    expect((await client.releaseHold('list', 'b')).hold).toMatchObject({ status: 'released', remaining: 0 });

    const first = await client.listHolds('list', { limit: 2 });
    const second = await client.listHolds('list', { limit: 2, cursor: first.nextCursor! });
    expect(second.nextCursor).toBeNull();
    const all = [];
    for await (const hold of client.holds('list')) all.push(hold);
    expect(all.map(({ holdId }) => holdId)).toEqual(['a', 'b', 'c']);
    expect([...first.holds, ...second.holds]).toEqual(all);
    const active = [];
    for await (const { holdId } of client.holds('list', { status: 'active' })) active.push(holdId);
    expect(active).toEqual(['a', 'c']);
  });

  it('is placed once, and captured once, when the connection breaks before the answers arrive', async () => {
    await accountsWith({ lost: 100 });
    const lossy = () =>
      clientThrough((connection, count) => {
        if (count === 1) swallowAnswer(connection);
      });
    const [placing, capturing] = [await lossy(), await lossy()];
    const placed = await placing.through.placeHold('lost', { holdId: 'h', amount: 40 });
    expect(placed).toMatchObject({ status: 'active', remaining: 40 });
    expect(placing.count()).toBe(2);
    const captured = await capturing.through.captureHold('lost', 'h', { amount: 10, final: false });
    expect(captured).toMatchObject({ balance: 90, replayed: true });
    expect(await client.readAccount('lost')).toMatchObject({ balance: 90, held: 30, version: 3 });
  });

  it('that a later refusal does not settle stays unknown, as no key remembers it', async () => {
    await accountsWith({ bare: 10 });
    const hold = { holdId: 'h', amount: 11 };
    const { through } = await clientThrough((connection, count) => {
      if (count === 1) loseRequest(connection);
    });
    const error = await failureOf(through.placeHold('bare', hold));
    expect(error).toMatchObject({
      code: 'outcome_unknown',
      accountId: 'bare',
      idempotencyKey: undefined,
      cause: { code: 'insufficient_funds' },
    });
    expect(error.message).toContain('Retry the same call to find out');
    expect((await failureOf(client.placeHold('bare', hold))).code).toBe('insufficient_funds');
  });

  it('that is closed settles a capture that was lost on its way', async () => {
    await accountsWith({ closed: 10 });
    await client.placeHold('closed', { holdId: 'h', amount: 10 });
    await client.releaseHold('closed', 'h');
    const { through } = await clientThrough((connection, count) => {
      if (count === 1) loseRequest(connection);
    });
    const error = await failureOf(through.captureHold('closed', 'h'));
    expect(error).toMatchObject({ code: 'hold_closed', hold: { status: 'released' } });
  });
});

describe('a reversal', () => {
  it('takes back what an answer or an id says: an update, a transfer, a capture', async () => {
    await accountsWith({ 'back:a': 100, 'back:b': 0 });
    const paid = await client.updateBalance({ accountId: 'back:a', amount: -40 });
    expect(await client.reverse(paid, { amount: 10 })).toMatchObject({
      reverses: paid.eventId,
      legs: [{ accountId: 'back:a', amount: 10, balance: 70 }],
    });
    const rest = await client.reverse(paid.eventId);
    expect(rest).toMatchObject({ legs: [{ amount: 30, balance: 100 }] });
    expect((await failureOf(client.reverse(paid))).code).toBe('already_reversed');
    expect((await failureOf(client.reverse(rest.legs[0]!.eventId))).code).toBe('not_reversible');

    const moved = await client.transfer({ from: 'back:a', to: 'back:b', amount: 20 });
    expect(await client.reverse(moved)).toMatchObject({ reverses: moved.transferId, transferId: expect.any(String) });
    await client.placeHold('back:a', { holdId: 'h', amount: 25 });
    const alone = await client.captureHold('back:a', 'h', { amount: 5, final: false });
    const captured = await client.captureHold('back:a', 'h', { to: 'back:b' });
    expect(await balancesOf('back:a', 'back:b')).toEqual([75, 20]);
    expect(await client.reverse(alone)).toMatchObject({ reverses: alone.eventId, legs: [{ amount: 5 }] });
    expect(await client.reverse(captured)).toMatchObject({
      reverses: captured.transferId,
      legs: [{ amount: 20 }, { amount: -20 }],
    });
    expect(await balancesOf('back:a', 'back:b')).toEqual([100, 0]);
  });

  it('takes effect once when the connection breaks before the answer arrives', async () => {
    await accountsWith({ once: 100 });
    const paid = await client.updateBalance({ accountId: 'once', amount: -40 });
    const { through } = await clientThrough((connection, count) => {
      if (count === 1) swallowAnswer(connection);
    });
    expect(await through.reverse(paid)).toMatchObject({ replayed: true, legs: [{ amount: 40, balance: 100 }] });
    expect(await client.readAccount('once')).toMatchObject({ balance: 100, version: 3 });
  });
});

describe('a bulk call', () => {
  it('has a result for each, in order, and survives a lost answer', async () => {
    await insertAccounts(database, 'bulk');
    const { through } = await clientThrough((connection, count) => {
      if (count === 1) swallowAnswer(connection);
    });
    const results = await through.updateBalances([
      { accountId: 'bulk', amount: 5 },
      { accountId: 'bulk', amount: -6, idempotencyKey: 'too-much' },
      { accountId: 'nobody', amount: 1 },
      { accountId: 'bulk', amount: 7 },
    ]);
    expect(results).toMatchObject([
      { ok: true, balance: 5, replayed: true },
      { ok: false, error: { code: 'insufficient_funds', balance: 5, idempotencyKey: 'too-much' } },
      { ok: false, error: { code: 'outcome_unknown', accountId: 'nobody', cause: { code: 'account_not_found' } } },
      { ok: true, balance: 12, replayed: true },
    ]);
    expect(await client.readAccount('bulk')).toMatchObject({ version: 2 });
  });

  it('keeps what it knows when the deadline comes, and gives each key for the rest', async () => {
    await insertAccounts(database, 'half');
    const { through } = await clientThrough(swallowAnswer);
    const updates = [1, 2].map((amount) => ({ accountId: 'half', amount }));
    const results = await through.updateBalances(updates, { deadlineMs: 500 });
    const again = results.map((result, index) => {
      if (result.ok) throw new Error('its answer was lost');
      expect(result.error).toMatchObject({ code: 'outcome_unknown', accountId: 'half' });
      return { ...updates[index]!, idempotencyKey: result.error.idempotencyKey };
    });
    expect(await client.updateBalances(again)).toMatchObject([
      { ok: true, version: 1, replayed: true },
      { ok: true, version: 2, replayed: true },
    ]);
  });

  it('rejects when nothing can have taken effect', async () => {
    const error = await failureOf(client.updateBalances([{ accountId: 'bulk', amount: 0 }]));
    expect(error).toMatchObject({ code: 'invalid_request', errors: [{ where: '/updates/0/amount' }] });
  });
});

describe('an atomic call', () => {
  it('moves all or nothing, and says which update was the reason', async () => {
    await accountsWith({ 'all:a': 10, 'all:b': 0 });
    const updates = [
      { accountId: 'all:a', amount: -6, reference: 'first' },
      { accountId: 'all:b', amount: 6 },
      { accountId: 'all:a', amount: -4, expectedVersion: 2, metadata: { part: '2' } },
    ];
    const applied = await client.updateBalances(updates, { atomic: true, idempotencyKey: 'all-1' });
    expect(applied).toMatchObject([
      { ok: true, accountId: 'all:a', balance: 4, version: 2, replayed: false, idempotencyKey: 'all-1' },
      { ok: true, accountId: 'all:b', balance: 6, version: 1 },
      { ok: true, accountId: 'all:a', balance: 0, version: 3 },
    ]);
    const again = await client.updateBalances(updates, { atomic: true, idempotencyKey: 'all-1' });
    expect(again).toEqual(applied.map((result) => ({ ...result, replayed: true })));

    const refused = await client.updateBalances(
      [
        { accountId: 'all:b', amount: 5 },
        { accountId: 'all:a', amount: -1 },
      ],
      { atomic: true },
    );
    expect(refused).toMatchObject([
      { ok: false, error: { code: 'linked_failed', accountId: 'all:b', status: 409 } },
      { ok: false, error: { code: 'insufficient_funds', accountId: 'all:a', balance: 0, status: 400 } },
    ]);
    const keys = refused.map((result) => (result.ok ? undefined : result.error.idempotencyKey));
    expect(keys).toEqual([expect.any(String), keys[0]]);
    expect(await balancesOf('all:a', 'all:b')).toEqual([0, 6]);
    // Another request under the key of the first.
    const reused = client.updateBalances(updates.slice(1), { atomic: true, idempotencyKey: 'all-1' });
    expect(await reused).toMatchObject([
      { ok: false, error: { code: 'idempotency_key_reused' } },
      { ok: false, error: { code: 'idempotency_key_reused' } },
    ]);
  });

  it('takes effect once when the connection breaks before the answer arrives, and is declined once', async () => {
    await accountsWith({ 'whole:a': 10, 'whole:b': 0 });
    const lossy = async () =>
      (
        await clientThrough((connection, count) => {
          if (count <= 2) swallowAnswer(connection);
        })
      ).through;
    const both = (amount: number) => [
      { accountId: 'whole:b', amount },
      { accountId: 'whole:a', amount: -amount },
    ];
    expect(await (await lossy()).updateBalances(both(10), { atomic: true })).toMatchObject([
      { ok: true, balance: 10, replayed: true },
      { ok: true, balance: 0, replayed: true },
    ]);
    expect(await (await lossy()).updateBalances(both(1), { atomic: true })).toMatchObject([
      { ok: false, error: { code: 'linked_failed' } },
      { ok: false, error: { code: 'insufficient_funds', balance: 0 } },
    ]);
    expect(await balancesOf('whole:a', 'whole:b')).toEqual([0, 10]);
  });

  it('is sent again while more holds of one of its accounts are due than a batch expires', async () => {
    const holds = 20_000;
    await accountsWith({ 'due:a': 0, 'due:b': holds });
    await database.pool.query(
      `WITH placed AS (
         INSERT INTO hold (account_id, hold_id, amount, remaining, expires_at, client, fingerprint, created_at, updated_at)
         SELECT 'due:b', 'h' || number, 1, 1, now() - interval '1 second', '', decode(repeat('00', 16), 'hex'), now(), now()
         FROM generate_series(1, $1::integer) AS number
       )
       UPDATE account SET held = $1 WHERE account_id = 'due:b'`,
      [holds],
    );
    const updates = [
      { accountId: 'due:a', amount: holds },
      { accountId: 'due:b', amount: -holds },
    ];
    const first = await send(url, 'POST', '/v1/balance-updates/bulk', { updates, atomic: true });
    expect(first.body.results).toMatchObject([
      { code: 'overloaded', accountId: 'due:a' },
      { code: 'overloaded', accountId: 'due:b' },
    ]);
    expect(await client.updateBalances(updates, { atomic: true })).toMatchObject([
      { ok: true, balance: holds },
      { ok: true, balance: 0 },
    ]);
  });

  it('that a later refusal does not settle stays unknown as a whole, and can be settled under its key', async () => {
    await accountsWith({ 'part:a': 10, 'part:b': 0 });
    const updates = [
      { accountId: 'part:a', amount: -10 },
      { accountId: 'part:b', amount: 10 },
    ];
    const { through } = await clientThrough((connection, count) => {
      if (count === 1) loseRequest(connection);
    });
    await client.changeAccount('part:b', { status: 'frozen' });
    const results = await through.updateBalances(updates, { atomic: true });
    const errors = results.map((result) => (result.ok ? expect.unreachable() : result.error));
    expect(errors).toMatchObject([
      { code: 'outcome_unknown', accountId: 'part:a', cause: { code: 'linked_failed' } },
      { code: 'outcome_unknown', accountId: 'part:b', cause: { code: 'account_frozen' } },
    ]);
    await client.changeAccount('part:b', { status: 'open' });
    const { idempotencyKey } = errors[0]!;
    const late = await client.updateBalances(updates, { atomic: true, idempotencyKey });
    expect(late).toMatchObject([
      { ok: true, replayed: false },
      { ok: true, balance: 10 },
    ]);

    const { through: deaf } = await clientThrough(swallowAnswer);
    const reverse = updates.map(({ accountId, amount }) => ({ accountId, amount: -amount }));
    const lost = await deaf.updateBalances(reverse, { atomic: true, idempotencyKey: 'lost', deadlineMs: 500 });
    expect(lost).toMatchObject([
      { ok: false, error: { code: 'outcome_unknown', accountId: 'part:a', idempotencyKey: 'lost' } },
      { ok: false, error: { code: 'outcome_unknown', accountId: 'part:b', idempotencyKey: 'lost' } },
    ]);
    expect(await client.updateBalances(reverse, { atomic: true, idempotencyKey: 'lost' })).toMatchObject([
      { ok: true, replayed: true },
      { ok: true, replayed: true },
    ]);
  });

  it('rejects when it is not valid, and before anything is sent where it can', async () => {
    const atomic = true as const;
    const update = { accountId: 'bulk', amount: -1 };
    const { through, count } = await clientThrough(() => {});
    expect(await failureOf(through.updateBalances([], { atomic }))).toMatchObject({ code: 'invalid_request' });
    const unsendable = through.updateBalances([update], { atomic, idempotencyKey: 'é' });
    expect(await failureOf(unsendable)).toMatchObject({ errors: [{ where: 'idempotencyKey' }] });
    expect(count()).toBe(0);
    // @ts-expect-error -- a key remembers what all did, not what one took
    const upTo = client.updateBalances([{ ...update, upTo: true }], { atomic });
    expect(await failureOf(upTo)).toMatchObject({ code: 'invalid_request', errors: [{ where: '/updates' }] });
    // @ts-expect-error -- the key is the call's
    const keyed = client.updateBalances([{ ...update, idempotencyKey: 'k' }], { atomic });
    expect(await failureOf(keyed)).toMatchObject({ code: 'invalid_request', errors: [{ where: '/updates' }] });
  });

  it('is sent again while the service is overloaded', async () => {
    await insertAccounts(database, 'crowded');
    const tiny = await startApiHere(database, broker, { LANES: '1', QUEUE_ROWS_MAX: '2', RELAY: 'off' });
    const many = createClient({ url: tiny.url });
    const blocker = await database.pool.connect();
    await blocker.query('BEGIN');
    await blocker.query("SELECT FROM account WHERE account_id = 'crowded' FOR UPDATE");
    try {
      const update = { accountId: 'crowded', amount: 1 };
      const calls = Array.from({ length: 8 }, () => many.updateBalances([update, update], { atomic: true }));
      await untilFull(tiny.url);
      const failed = await failureOf(many.updateBalances([update, update], { atomic: true, deadlineMs: 1500 }));
      expect(failed).toMatchObject({ code: 'overloaded', status: 503 });
      await blocker.query('COMMIT');
      expect((await Promise.all(calls)).flat().every(({ ok }) => ok)).toBe(true);
      expect(await many.readAccount('crowded')).toMatchObject({ balance: 16, version: 16 });
    } finally {
      blocker.release();
    }
  });
});

/** Both places of its queue are taken: who comes first is chance. */
function untilFull(url: string): Promise<void> {
  return until('the queue is full', async () => (await send(url, 'GET', '/readyz')).body.lanes.waiting >= 2);
}

describe('a busy service', () => {
  it('gets the updates that it refused as overloaded again, until they pass', async () => {
    await insertAccounts(database, 'busy');
    const tiny = await startApiHere(database, broker, { LANES: '1', QUEUE_ROWS_MAX: '2', RELAY: 'off' });
    const many = createClient({ url: tiny.url });
    const blocker = await database.pool.connect();
    await blocker.query('BEGIN');
    await blocker.query("SELECT FROM account WHERE account_id = 'busy' FOR UPDATE");
    try {
      const update = { accountId: 'busy', amount: 1 };
      const singles = Array.from({ length: 20 }, () => many.updateBalance(update));
      const bulk = many.updateBalances(Array.from({ length: 10 }, () => update));
      await untilFull(tiny.url); // and it stays so
      const error = await failureOf(many.updateBalance(update, { deadlineMs: 1500 }));
      expect(error).toMatchObject({ code: 'overloaded', status: 503 });
      await blocker.query('COMMIT');
      await Promise.all(singles);
      expect((await bulk).every(({ ok }) => ok)).toBe(true);
      expect(await many.readAccount('busy')).toMatchObject({ balance: 30, version: 30 });
    } finally {
      blocker.release();
    }
  });

  it('sees no more connections than the client may have', async () => {
    let openMax = 0;
    const { proxy, through } = await clientThrough(
      () => {
        openMax = Math.max(openMax, proxy.connections().length);
      },
      { connectionsMax: 5 },
    );
    await Promise.all(Array.from({ length: 200 }, () => through.readAccount('shape')));
    expect(openMax).toBe(5);
  });

  it('does not let waiting calls pile up without end', async () => {
    const { proxy, through } = await clientThrough((connection) => connection.setMode('toServer', 'hold'), {
      connectionsMax: 1,
    });
    const waiting = Array.from({ length: 10_001 }, () => failureOf(through.readAccount('shape', { deadlineMs: 3000 })));
    expect(await failureOf(through.readAccount('shape'))).toMatchObject({ code: 'too_many_calls' });
    const ended = await Promise.all(waiting);
    expect(new Set(ended.map(({ code }) => code))).toEqual(new Set(['unreachable']));
    await proxy.close();
  });

  it('is given the time that it asks for', async () => {
    const account = { status: 200, body: '{"id":"a"}' };
    const { url, requests } = await gateway({ status: 429, headers: { 'retry-after': '1' } }, account);
    const startedAtMs = performance.now();
    expect(await createClient({ url }).readAccount('a')).toEqual({ id: 'a' });
    expect(performance.now() - startedAtMs).toBeGreaterThanOrEqual(999);
    expect(requests()).toBe(2);
  });
});

describe('an API key', () => {
  it('is sent with each call, can change, and is limited with a wait that helps', async () => {
    const guarded = await startApiHere(database, broker, { AUTH: 'required', RELAY: 'off', RATE_LIMIT_WINDOW_S: '1' });
    expect(await failureOf(createClient({ url: guarded.url }).readAccount('shape'))).toMatchObject({
      code: 'unauthorized',
      status: 401,
    });
    const reader = await createApiKey(database, 'reader', ['read']);
    let token = reader.token;
    const keyed = createClient({ url: guarded.url, token: () => token });
    expect(await keyed.readAccount('shape')).toMatchObject({ id: 'shape' });
    expect(await failureOf(keyed.updateBalance({ accountId: 'shape', amount: 1 }))).toMatchObject({
      code: 'forbidden',
    });

    ({ token } = await createApiKey(database, 'slow', ['read', 'write'], 2));
    const startedAtMs = performance.now();
    for (let count = 0; count < 5; count += 1) await keyed.readAccount('shape');
    expect(performance.now() - startedAtMs).toBeGreaterThan(900);
    const updates = Array.from({ length: 3 }, () => ({ accountId: 'shape', amount: 1 }));
    expect(await failureOf(keyed.updateBalances(updates))).toMatchObject({ code: 'rate_limited' });

    token = 'not a token';
    const error = await failureOf(keyed.readAccount('shape'));
    expect(error).toMatchObject({ code: 'unauthorized', status: undefined });
    expect(JSON.stringify([error, error.message, String(error.cause)])).not.toContain(token);
  });
});

it.each([
  [{ url: 'localhost:3000' }, /url must be the http/],
  [{ url: 'http://user:secret@localhost' }, /url must be the http/],
  [{ url: 'http://localhost', token: 'two words' }, /token must be/],
  [{ url: 'http://localhost', token: '' }, /token must not be empty: leave it out/],
  [{ url: 'http://localhost', deadlineMs: 0 }, /deadlineMs must be a whole number from 1 to 3600000/],
  [{ url: 'http://localhost', connectionsMax: 1.5 }, /connectionsMax must be/],
])('refuses the options %j with a sentence', (options, message) => {
  expect(() => createClient(options)).toThrow(message);
  expect(() => createClient(options)).not.toThrow(/secret|two words/);
});
