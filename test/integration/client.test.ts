// The client against the real service, through a proxy that breaks connections at the worst moments.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BalanceError, type Client, type ClientOptions, createClient } from '../../src/client/client.ts';
import type { Account, AppliedUpdate, EntriesPage, Entry } from '../../src/shared/contract.ts';
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
  spawnProcess,
  startApiHere,
  startWorkerHere,
  until,
} from '../harness.ts';

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

describe('each call', () => {
  /** The members of an answer and their types: the compiler holds the names to the published types. */
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
      "SELECT apply_changes(ARRAY['shape'], ARRAY[1], ARRAY[3::bigint], ARRAY['r'], ARRAY['shop'], NULL, NULL, NULL, NULL)",
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

  it('may be made again with the same result', async () => {
    const first = await client.createAccount({ id: 'again' });
    expect(await client.createAccount({ id: 'again' })).toEqual(first);
    const update = { accountId: 'again', amount: 5, idempotencyKey: ' "order" \\ 1 ' };
    const applied = await client.updateBalance(update);
    expect(await client.updateBalance(update)).toEqual({ ...applied, replayed: true });
    expect(await client.updateBalances([update])).toEqual([{ ok: true, ...applied, replayed: true }]);
  });

  it('looks back: past balances, filtered entries, accounts by prefix', async () => {
    await client.createAccount({ id: 'look:back' });
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
    for await (const { version } of client.entries('look:back', {}, { direction: 'debit' })) debits.push(version);
    expect(debits).toEqual([2]);
    const from = new Date(second?.createdAt as string);
    const page = await client.readEntries('look:back', { from, limit: 1 });
    expect(page.entries.map(({ version }) => version)).toEqual([3]);
    const { accounts, nextCursor } = await client.readAccounts({ prefix: 'look:' });
    expect({ ids: accounts.map(({ id }) => id), nextCursor }).toEqual({ ids: ['look:back'], nextCursor: null });
    const failure = await failureOf(client.readPastBalance('look:back', { version: 4 }));
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
    const declined = await failureOf(client.updateBalance({ accountId: 'poor', amount: -1, idempotencyKey: 'k' }));
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
    expect(await failureOf(client.readAccount(id))).toMatchObject({ code: 'invalid_request' });
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
      if (count === 1) {
        connection.watch('toServer', () => {
          connection.cut();
          return true;
        });
      }
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

  it('takes effect once behind a gateway that lost the answer', async () => {
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
    expect(performance.now() - startedAtMs).toBeLessThan(2000);
    expect(error).toMatchObject({ code: 'outcome_unknown', accountId: 'unknown', idempotencyKey: expect.any(String) });
    expect(error.message).toContain('Send it again under its key');
    expect(error.cause).toMatchObject({ code: 'unreachable' });
    await proxy.close();
    const { idempotencyKey } = error;
    expect(await client.updateBalance({ ...update, idempotencyKey })).toMatchObject({ version: 1, replayed: true });
  });

  it('that a later refusal does not settle stays unknown', async () => {
    await client.createAccount({ id: 'frozen' });
    const { through } = await clientThrough((connection, count) => {
      if (count > 1) return;
      connection.watch('toServer', () => {
        connection.cut();
        return true;
      });
    });
    await client.changeAccount('frozen', { status: 'frozen' });
    const error = await failureOf(through.updateBalance({ accountId: 'frozen', amount: 1 }));
    expect(error).toMatchObject({ code: 'outcome_unknown', cause: { code: 'account_frozen' } });
  });

  it('that was declined behind a broken connection is declined', async () => {
    await insertAccounts(database, 'declined');
    const { through } = await clientThrough((connection, count) => {
      if (count === 1) swallowAnswer(connection);
    });
    const error = await failureOf(through.updateBalance({ accountId: 'declined', amount: -1 }));
    expect(error).toMatchObject({ code: 'insufficient_funds', balance: 0 });
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
      // Both places of the queue and the lane are taken, and stay so.
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
  [{ url: 'http://localhost', deadlineMs: 0 }, /deadlineMs must be a whole number from 1 to 3600000/],
  [{ url: 'http://localhost', connectionsMax: 1.5 }, /connectionsMax must be/],
])('refuses the options %j with a sentence', (options, message) => {
  expect(() => createClient(options)).toThrow(message);
  expect(() => createClient(options)).not.toThrow(/secret|two words/);
});
