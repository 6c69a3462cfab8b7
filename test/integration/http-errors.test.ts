// The error catalogue: each code is really answered, with its status and a problem document.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startServer } from '../../src/api/http/server.ts';
import { ANSWER_HEADERS } from '../../src/shared/answer-headers.ts';
import { type ProblemCode, problems } from '../../src/shared/problems.ts';
import {
  type Answer,
  cleanUp,
  createAccount,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  onCleanUp,
  send,
  startApiHere,
  until,
} from '../support/harness.ts';
import {
  bytesOf,
  closed,
  deliver,
  JSON_TYPE,
  lockAccount,
  open,
  parseAnswers,
  post,
  waitingBackends,
} from '../support/http-client.ts';

const UPDATES = '/v1/balance-updates';
const AMOUNT_MAX = Number.MAX_SAFE_INTEGER;

let database: Database;
let broker: ReturnType<typeof createBroker>;
let url: string;
let guardedUrl: string;

beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
  ({ url } = await startApiHere(database, broker, { RELAY: 'off' }));
  await createAccount(url, 'alice', 100);
  const guarded = { RELAY: 'off', AUTH: 'required', RATE_LIMIT: '1', RATE_LIMIT_WINDOW_S: '60' };
  ({ url: guardedUrl } = await startApiHere(database, broker, guarded));
});
afterAll(cleanUp);

const update = (accountId: string, amount: number, key?: string) =>
  send(url, 'POST', UPDATES, { accountId, amount }, key === undefined ? {} : { 'idempotency-key': key });

/** Of an account of its own with 100. */
async function placeHold(accountId: string, amount: number, expiresInSeconds?: number): Promise<void> {
  await createAccount(url, accountId, 100);
  const { status } = await send(url, 'POST', `/v1/accounts/${accountId}/holds`, {
    holdId: 'h',
    amount,
    expiresInSeconds,
  });
  expect(status).toBe(201);
}

/** Ends the connection of the API whose statement waits for this account. */
async function cutWhileWaiting(accountId: string, call: () => Promise<Answer>): Promise<Answer> {
  return cutBehind(await lockAccount(database, accountId), call);
}

async function cutBehind(lock: { release: () => Promise<void> }, call: () => Promise<Answer>): Promise<Answer> {
  const answer = call();
  await until('the statement waits for the lock', async () => (await waitingBackends(database)).length === 1);
  const [waiting] = await waitingBackends(database);
  await database.pool.query('SELECT pg_terminate_backend($1)', [waiting]);
  await until('its backend is gone', async () => !(await waitingBackends(database)).includes(waiting as number));
  await lock.release();
  return answer;
}

const refusalOf: Record<ProblemCode, () => Promise<Answer>> = {
  headers_too_large: () => deliver(url, { path: '/livez', headers: [['X-Long', 'x'.repeat(20_000)]] }),
  async request_timeout() {
    const timeouts = { headersMs: 100, requestMs: 100, checkMs: 20 };
    const server = await startServer(() => {}, '127.0.0.1', 0, timeouts);
    onCleanUp(() => server.stop());
    const { socket, received } = open(`http://127.0.0.1:${server.port}`);
    socket.write('POST /v1/balance-updates HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"accountId"');
    await closed(socket);
    return parseAnswers(received())[0] as Answer;
  },
  misdirected: () => deliver(url, { path: '/v1/accounts/alice', headers: [['Host', 'evil.example:3000']] }),
  cross_origin: () => deliver(url, { path: '/v1/accounts/alice', headers: [['Sec-Fetch-Site', 'cross-site']] }),
  unauthorized: () => send(guardedUrl, 'GET', '/v1/accounts/alice'),
  async forbidden() {
    const { headers } = await createApiKey(database, 'writer', ['write']);
    return send(guardedUrl, 'GET', '/v1/accounts/alice', undefined, headers);
  },
  not_found: () => send(url, 'GET', '/v1/nothing'),
  method_not_allowed: () => send(url, 'PATCH', UPDATES, {}),
  async rate_limited() {
    const { headers } = await createApiKey(database, 'hasty', ['read']);
    await send(guardedUrl, 'GET', '/v1/accounts/alice', undefined, headers);
    return send(guardedUrl, 'GET', '/v1/accounts/alice', undefined, headers);
  },
  payload_too_large: () => send(url, 'POST', UPDATES, 'x'.repeat(20_000)),
  unsupported_media_type: () => send(url, 'POST', UPDATES, '{}', { 'content-type': 'text/plain' }),
  invalid_request: () => send(url, 'POST', UPDATES, '{}'),
  async overloaded() {
    const small = await startApiHere(database, broker, { RELAY: 'off', LANES: '1', QUEUE_ROWS_MAX: '1' });
    await createAccount(small.url, 'crowded');
    const credit = () => send(small.url, 'POST', UPDATES, { accountId: 'crowded', amount: 1 });
    const lock = await lockAccount(database, 'crowded');
    const sent = credit();
    await until('the first waits for the row', async () => (await waitingBackends(database)).length === 1);
    const others = [credit(), credit()];
    const refused = await Promise.race(others); // one waits in the queue, and for the other there is no room
    await lock.release();
    const statuses = (await Promise.all([sent, ...others])).map((answer) => answer.status);
    expect(statuses.sort()).toEqual([200, 200, 503]);
    expect((await send(url, 'GET', '/v1/accounts/crowded')).body).toMatchObject({ balance: 2, version: 2 });
    return refused;
  },
  async unavailable() {
    const nowhere = { ...database, url: 'postgres://nobody:nothing@127.0.0.1:1/none' };
    const away = await startApiHere(nowhere, broker, { RELAY: 'off' });
    const path = '/v1/accounts/alice';
    for (const answer of [
      await send(away.url, 'GET', path),
      await send(away.url, 'PATCH', path, { status: 'frozen' }),
      await send(away.url, 'GET', `${path}/entries`),
      await send(away.url, 'POST', '/v1/accounts', { id: 'bob' }),
    ]) {
      expect(answer).toMatchObject({ status: 503, body: { code: 'unavailable' } });
    }
    return send(away.url, 'POST', UPDATES, { accountId: 'alice', amount: 1 });
  },
  async idempotency_key_reused() {
    await createAccount(url, 'keyed');
    await update('keyed', 1, 'key');
    return update('keyed', 2, 'key');
  },
  async account_exists() {
    await createAccount(url, 'taken');
    return send(url, 'POST', '/v1/accounts', { id: 'taken', overdraftLimit: 5 });
  },
  async hold_exists() {
    await placeHold('exists', 1);
    return send(url, 'POST', '/v1/accounts/exists/holds', { holdId: 'h', amount: 2 });
  },
  change_not_found: () => send(url, 'POST', '/v1/reversals', { of: 'alice:99:mwtowow0' }),
  transfer_not_found: () => send(url, 'GET', '/v1/transfers/alice:99:mwtowow0'),
  account_not_found: () => update('nobody', 1),
  async account_closed() {
    await createAccount(url, 'closed');
    await send(url, 'PATCH', '/v1/accounts/closed', { status: 'closed' });
    return update('closed', 1);
  },
  async account_not_empty() {
    await createAccount(url, 'full', 1);
    return send(url, 'PATCH', '/v1/accounts/full', { status: 'closed' });
  },
  async overdraft_limit_too_low() {
    await send(url, 'POST', '/v1/accounts', { id: 'indebted', overdraftLimit: 50 });
    await update('indebted', -50);
    return send(url, 'PATCH', '/v1/accounts/indebted', { overdraftLimit: 49 });
  },
  async account_frozen() {
    await createAccount(url, 'frozen', 10);
    await send(url, 'PATCH', '/v1/accounts/frozen', { status: 'frozen' });
    return update('frozen', 1);
  },
  async asset_mismatch() {
    await send(url, 'POST', '/v1/accounts', { id: 'euros', asset: 'EUR/2' });
    return send(url, 'POST', '/v1/transfers', { from: 'alice', to: 'euros', amount: 1 });
  },
  hold_not_found: () => send(url, 'POST', '/v1/accounts/alice/holds/none/capture', {}),
  async hold_closed() {
    await placeHold('closing', 5);
    await send(url, 'POST', '/v1/accounts/closing/holds/h/capture', { amount: 2 });
    const answer = await send(url, 'POST', '/v1/accounts/closing/holds/h/capture', {});
    expect(answer.body.hold).toMatchObject({ holdId: 'h', status: 'captured', captured: 2, remaining: 0 });
    return answer;
  },
  async hold_expired() {
    await placeHold('expiring', 5, 1);
    let answer = await send(url, 'PATCH', '/v1/accounts/expiring/holds/h', { expiresInSeconds: 1 });
    await until('it has expired', async () => {
      answer = await send(url, 'POST', '/v1/accounts/expiring/holds/h/capture', { amount: 6 });
      return answer.body.code !== 'hold_amount_exceeded';
    });
    return answer;
  },
  async not_reversible() {
    const { body } = await send(url, 'POST', '/v1/reversals', { of: (await update('alice', 1)).body.eventId });
    return send(url, 'POST', '/v1/reversals', { of: body.legs[0].eventId });
  },
  async already_reversed() {
    const of = (await update('alice', 1)).body.eventId;
    await send(url, 'POST', '/v1/reversals', { of });
    return send(url, 'POST', '/v1/reversals', { of });
  },
  version_mismatch: () => send(url, 'POST', UPDATES, { accountId: 'alice', amount: 1, expectedVersion: 0 }),
  async hold_amount_exceeded() {
    await placeHold('exceeded', 5);
    return send(url, 'POST', '/v1/accounts/exceeded/holds/h/release', { amount: 6 });
  },
  async reversal_exceeds() {
    return send(url, 'POST', '/v1/reversals', { of: (await update('alice', 1)).body.eventId, amount: 2 });
  },
  balance_out_of_range: () => update('alice', AMOUNT_MAX),
  async max_balance_exceeded() {
    await send(url, 'POST', '/v1/accounts', { id: 'capped', maxBalance: 5 });
    return update('capped', 6);
  },
  insufficient_funds: () => update('alice', -101_000),
  async linked_failed() {
    const updates = [
      { accountId: 'alice', amount: 1 },
      { accountId: 'nobody', amount: 1 },
    ];
    const { headers, body } = await send(url, 'POST', `${UPDATES}/bulk`, { updates, atomic: true });
    expect(body.results[1]).toMatchObject({ status: 404, code: 'account_not_found', accountId: 'nobody' });
    expect(headers.get('content-type')).toMatch(/^application\/json/);
    const [one] = body.results; // a part of an answer: only what it says is that of a problem document
    const ofDocument = new Headers(headers);
    ofDocument.set('content-type', 'application/problem+json');
    return { status: one.status, headers: ofDocument, body: one };
  },
  async outcome_unknown() {
    await createAccount(url, 'cut', 10);
    return cutWhileWaiting('cut', () => update('cut', -1));
  },
  async internal() {
    const damaged = await createDatabase();
    const api = await startApiHere(damaged, broker, { RELAY: 'off' });
    await createAccount(api.url, 'alice');
    await damaged.pool.query('ALTER FUNCTION apply_changes RENAME TO gone');
    const answer = await send(api.url, 'POST', UPDATES, { accountId: 'alice', amount: 1 });
    await damaged.pool.query('ALTER FUNCTION gone RENAME TO apply_changes');
    const later = await send(api.url, 'POST', UPDATES, { accountId: 'alice', amount: 1 });
    expect(later.body).toMatchObject({ version: 1 });
    return answer;
  },
};

it.each(Object.keys(problems) as ProblemCode[])('answers %s with its status and its problem document', async (code) => {
  const problem: { status: number; title: string; retryAfterS?: number } = problems[code];
  const { status, headers, body } = await refusalOf[code]();
  expect(body).toMatchObject({
    type: `urn:highload-balance:problem:${code}`,
    title: problem.title,
    status: problem.status,
    code,
  });
  expect(status).toBe(problem.status);
  expect(headers.get('content-type')).toBe('application/problem+json');
  for (const [name, value] of Object.entries(ANSWER_HEADERS)) expect(headers.get(name), name).toBe(value);
  if (code === 'rate_limited') expect(headers.get('retry-after')).toMatch(/^[3-6]\d$/);
  else expect(headers.get('retry-after')).toBe(problem.retryAfterS?.toString() ?? null);
});

it('settles a keyed update whose connection died, with its true answer', async () => {
  await createAccount(url, 'settled', 10);
  const answer = await cutWhileWaiting('settled', () => update('settled', -3, 'k'));
  expect(answer).toMatchObject({ status: 200, body: { balance: 7, version: 2 } });
  const declined = await cutWhileWaiting('settled', () => update('settled', -8, 'l'));
  expect(declined).toMatchObject({ status: 400, body: { code: 'insufficient_funds', balance: 7, version: 2 } });
});

it('does not send an update again whose key may have gone meanwhile', async () => {
  const short = await startApiHere(database, broker, {
    IDEMPOTENCY_KEYS_KEPT_MS: '10000',
    STATEMENT_TIMEOUT_MS: '10000',
  });
  await createAccount(short.url, 'forgetful', 10);
  const body = { accountId: 'forgetful', amount: 1 };
  const call = () => send(short.url, 'POST', UPDATES, body, { 'idempotency-key': 'k' });
  expect(await cutWhileWaiting('forgetful', call)).toMatchObject({ status: 503, body: { code: 'outcome_unknown' } });
  expect((await send(url, 'GET', '/v1/accounts/forgetful')).body).toMatchObject({ balance: 10, version: 1 });
});

it('says of an update of unknown outcome what a retry would do', async () => {
  await createAccount(url, 'unsure', 10);
  const { body } = await cutWhileWaiting('unsure', () => update('unsure', -1));
  expect(body.detail).toMatch(/retry may apply it twice/);
});

it('does not claim that nothing was changed when the connection died under a change of an account', async () => {
  await createAccount(url, 'changing');
  const change = { overdraftLimit: 7 };
  const { body } = await cutWhileWaiting('changing', () => send(url, 'PATCH', '/v1/accounts/changing', change));
  expect(body.code).toBe('unavailable');
  expect(JSON.stringify(body)).not.toMatch(/nothing was changed/i);
  expect(body.detail).toMatch(/retry/i);
  const repeated = await send(url, 'PATCH', '/v1/accounts/changing', change);
  expect(repeated).toMatchObject({ status: 200, body: change });
});

it('survives that the connection dies under a verification, which takes several statements', async () => {
  await createAccount(url, 'verified');
  const client = await database.pool.connect();
  await client.query('BEGIN');
  await client.query('LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE');
  const lock = { release: () => client.query('COMMIT').then(() => client.release()) };
  const verification = () => send(url, 'GET', '/v1/accounts/verified/verification');
  expect(await cutBehind(lock, verification)).toMatchObject({ status: 503, body: { code: 'unavailable' } });
  expect(await verification()).toMatchObject({ status: 200, body: { verified: true } });
});

it('hides the reason of an internal failure, and recovers from it', async () => {
  const damaged = await createDatabase();
  const api = await startApiHere(damaged, broker, { RELAY: 'off' });
  await createAccount(api.url, 'alice');
  await damaged.pool.query('ALTER TABLE account RENAME TO secret_name');
  for (const answer of [
    await send(api.url, 'GET', '/v1/accounts/alice'),
    await send(api.url, 'POST', '/v1/accounts', { id: 'bob' }),
    await send(api.url, 'POST', UPDATES, { accountId: 'alice', amount: 1 }),
  ]) {
    expect(answer).toMatchObject({ status: 500, body: { code: 'internal' } });
    expect(JSON.stringify(answer.body)).not.toMatch(/relation|account" does not|stack|\.ts/);
  }
  await damaged.pool.query('ALTER TABLE secret_name RENAME TO account');
  expect(await send(api.url, 'GET', '/v1/accounts/alice')).toMatchObject({ status: 200, body: { balance: 0 } });
});

it('answers 408 to a request whose headers never end', async () => {
  const server = await startServer(() => {}, '127.0.0.1', 0, { headersMs: 100, requestMs: 5000, checkMs: 20 });
  onCleanUp(() => server.stop());
  const { socket, received } = open(`http://127.0.0.1:${server.port}`);
  socket.write('GET /livez HTTP/1.1\r\nHost: te');
  await closed(socket);
  expect(parseAnswers(received())).toMatchObject([{ status: 408, body: { code: 'request_timeout' } }]);
});

it('gives a complete request its own answer when rubbish follows it on the connection', async () => {
  await createAccount(url, 'exact', 10);
  const { socket, received } = open(url);
  const request = {
    ...post(UPDATES, { accountId: 'exact', amount: 1 }),
    headers: [JSON_TYPE, ['Connection', 'keep-alive']],
  };
  socket.write(Buffer.concat([bytesOf(request as Parameters<typeof bytesOf>[0]), Buffer.from(' } rubbish')]));
  await closed(socket);
  const account = await send(url, 'GET', '/v1/accounts/exact');
  expect(account.body).toMatchObject({ balance: 11, version: 2 });
  expect(parseAnswers(received())).toMatchObject([{ status: 200, body: { balance: 11, version: 2 } }]);
});
