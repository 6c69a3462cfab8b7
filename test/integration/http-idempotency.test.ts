// One effect for one (account, Idempotency-Key), and the first answer to every retry: across
// processes, restarts and answers that were lost on the way from the database.
import { connect, createServer, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  onCleanUp,
  send,
  sendPatiently,
  startApiHere,
  until,
  verified,
} from '../support/harness.ts';
import { stateOf } from '../support/http-client.ts';

let database: Database;
let broker: ReturnType<typeof createBroker>;
let urls: string[];

beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
  const apis = [await startApi(database), await startApi(database)];
  urls = apis.map(({ url }) => url);
});
afterAll(cleanUp);

const startApi = (its: Database) => startApiHere(its, broker, { RELAY: 'off' });

function update(accountId: string, amount: number, key?: string, more: object = {}, url = urls[0] as string) {
  const headers: Record<string, string> = key === undefined ? {} : { 'idempotency-key': key };
  return sendPatiently(url, 'POST', '/v1/balance-updates', { accountId, amount, ...more }, headers);
}
const accountOf = async (id: string) => (await send(urls[0] as string, 'GET', `/v1/accounts/${id}`)).body;
const isReplayed = (answer: { headers: Headers }) => answer.headers.get('idempotent-replayed') === 'true';

describe('a key', () => {
  it('applies once however many send it at once through two processes, and all get one answer', async () => {
    await createAccount(urls[0] as string, 'crowd', 1000);
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, index) => update('crowd', -7, 'k', { reference: 'r' }, urls[index % 2])),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(50).fill(200));
    expect(new Set(answers.map(({ body }) => JSON.stringify(body))).size).toBe(1);
    expect(answers.filter((answer) => !isReplayed(answer))).toHaveLength(1);
    expect(await accountOf('crowd')).toMatchObject({ balance: 993, version: 2 });
  });

  it('belongs to the update that came first when different ones race for it', async () => {
    await createAccount(urls[0] as string, 'race', 1000);
    const amounts = Array.from({ length: 40 }, (_, index) => -1 - (index % 10));
    const answers = await Promise.all(amounts.map((amount, index) => update('race', amount, 'k', {}, urls[index % 2])));
    const accepted = answers.filter(({ status }) => status === 200);
    expect(new Set(accepted.map(({ body }) => JSON.stringify(body))).size).toBe(1);
    expect(accepted).toHaveLength(4);
    const others = answers.filter(({ status }) => status !== 200);
    expect(new Set(others.map(({ status, body }) => `${status} ${body.code}`))).toEqual(
      new Set(['422 idempotency_key_reused']),
    );
    expect(await accountOf('race')).toMatchObject({ balance: 1000 + accepted[0]?.body.amount, version: 2 });
  });

  it('gives a decline again, word for word, also when the balance would cover it by now', async () => {
    await createAccount(urls[0] as string, 'declined', 5);
    const short = await update('declined', -10, 'short');
    const range = await update('declined', Number.MAX_SAFE_INTEGER, 'range');
    expect([short.body.code, range.body.code]).toEqual(['insufficient_funds', 'balance_out_of_range']);
    await update('declined', 95);
    const before = await stateOf(database);
    for (const [first, amount, key] of [
      [short, -10, 'short'],
      [range, Number.MAX_SAFE_INTEGER, 'range'],
    ] as const) {
      const again = await update('declined', amount, key, {}, urls[1]);
      expect(JSON.stringify(again.body)).toBe(JSON.stringify(first.body));
      expect(again.status).toBe(first.status);
      expect([isReplayed(first), isReplayed(again)]).toEqual([false, true]);
    }
    expect(await stateOf(database)).toBe(before);
    expect((await update('declined', -10, 'another')).status).toBe(200);
  });

  it('is independent on another account', async () => {
    await createAccount(urls[0] as string, 'mine', 10);
    await createAccount(urls[0] as string, 'yours', 10);
    const [mine, yours] = [await update('mine', -1, 'k'), await update('yours', -2, 'k')];
    expect([mine, yours]).toMatchObject([
      { status: 200, body: { balance: 9 } },
      { status: 200, body: { balance: 8 } },
    ]);
    expect(isReplayed(yours)).toBe(false);
  });

  it('is refused for another amount or reference, and then still gives its first answer', async () => {
    await createAccount(urls[0] as string, 'strict', 10);
    const first = await update('strict', -1, 'k', { reference: 'order 1' });
    const before = await stateOf(database);
    for (const [amount, more] of [
      [-2, { reference: 'order 1' }],
      [1, { reference: 'order 1' }],
      [-1, { reference: 'order 2' }],
      [-1, { reference: 'Order 1' }],
      [-1, {}],
    ] as const) {
      const answer = await update('strict', amount, 'k', more);
      expect(answer).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused', accountId: 'strict' } });
      expect(isReplayed(answer)).toBe(false);
    }
    expect((await update('strict', -1, 'k', { reference: 'order 1' })).body).toEqual(first.body);
    expect(await stateOf(database)).toBe(before);
  });

  it('is not spent by what a later retry could get past: a missing account, a frozen one, bad input', async () => {
    expect((await update('later', 5, 'k')).body.code).toBe('account_not_found');
    await createAccount(urls[0] as string, 'later');
    await send(urls[0] as string, 'PATCH', '/v1/accounts/later', { status: 'frozen' });
    expect((await update('later', 5, 'k')).body.code).toBe('account_frozen');
    await send(urls[0] as string, 'PATCH', '/v1/accounts/later', { status: 'open' });
    expect((await update('later', 0, 'k')).body.code).toBe('invalid_request');
    const applied = await update('later', 5, 'k');
    expect(applied).toMatchObject({ status: 200, body: { balance: 5, version: 3 } });
    expect(isReplayed(applied)).toBe(false);
  });

  it('is remembered beyond the process that took it', async () => {
    await createAccount(urls[0] as string, 'lasting', 10);
    const shortLived = await startApi(database);
    const first = await update('lasting', -1, 'k', {}, shortLived.url);
    await shortLived.stop();
    const again = await update('lasting', -1, 'k', {}, (await startApi(database)).url);
    expect(again).toMatchObject({ status: 200, body: first.body });
    expect(isReplayed(again)).toBe(true);
  });
});

it('applies every update that has no key', async () => {
  await createAccount(urls[0] as string, 'keyless', 100);
  await Promise.all(Array.from({ length: 20 }, (_, index) => update('keyless', -1, undefined, {}, urls[index % 2])));
  expect(await accountOf('keyless')).toMatchObject({ balance: 80, version: 21 });
});

describe('when the database commits and its answer is lost', () => {
  /** A way to PostgreSQL that loses the server's next answers, and then the connection. */
  async function startLossyWay(): Promise<{ url: string; loseNext: () => void; cut: () => void }> {
    const target = new URL(database.url);
    const pairs = new Set<Socket[]>();
    let isLosing = false;
    const server = createServer((near) => {
      const far = connect(Number(target.port || 5432), target.hostname);
      const pair = [near, far];
      pairs.add(pair);
      near.on('data', (bytes) => far.write(bytes));
      far.on('data', (bytes) => isLosing || near.write(bytes));
      for (const socket of pair) {
        socket.on('error', () => {});
        socket.on('close', () => {
          for (const other of pair) other.destroy();
          pairs.delete(pair);
        });
      }
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const cut = () => {
      isLosing = false;
      for (const [near] of pairs) near?.destroy();
    };
    onCleanUp(async () => {
      cut();
      server.close();
    });
    const url = new URL(database.url);
    url.hostname = '127.0.0.1';
    url.port = String((server.address() as { port: number }).port);
    return { url: url.href, loseNext: () => (isLosing = true), cut };
  }

  /** The answer to an update whose first answer from the database was lost. */
  async function updateWithLoss(
    accountId: string,
    amount: number,
    key: string | undefined,
    isCommitted: () => Promise<boolean>,
  ) {
    await createAccount(urls[0] as string, accountId, 10);
    const way = await startLossyWay();
    const api = await startApi({ ...database, url: way.url });
    await update(accountId, 1, undefined, {}, api.url); // its lane is connected
    way.loseNext();
    const answer = update(accountId, amount, key, {}, api.url);
    await until('the database has committed', isCommitted);
    way.cut();
    await answer;
    await update(accountId, -1, 'after', {}, api.url); // the lane is done with what it had: nothing comes later
    return answer;
  }
  const versionOf = async (id: string) =>
    (await database.pool.query('SELECT version FROM account WHERE account_id = $1', [id])).rows[0].version;

  it('an update with a key gets its true answer, and counts once', async () => {
    const answer = await updateWithLoss('lost-keyed', 5, 'k', async () => (await versionOf('lost-keyed')) === 3);
    expect(answer).toMatchObject({ status: 200, body: { amount: 5, balance: 16, version: 3 } });
    expect(await accountOf('lost-keyed')).toMatchObject({ balance: 15, version: 4 });
    expect((await update('lost-keyed', 5, 'k')).body).toEqual(answer.body);
  });

  it('a decline with a key is still a decline', async () => {
    const remembered = async () =>
      (await database.pool.query(`SELECT FROM idempotency_key WHERE account_id = 'lost-decline'`)).rowCount === 1;
    const answer = await updateWithLoss('lost-decline', -12, 'k', remembered);
    expect(answer).toMatchObject({ status: 400, body: { code: 'insufficient_funds', balance: 11, version: 2 } });
    expect(await accountOf('lost-decline')).toMatchObject({ balance: 10, version: 3 });
  });

  it('an update without a key is not called applied, nor refused', async () => {
    const answer = await updateWithLoss('lost-bare', 5, undefined, async () => (await versionOf('lost-bare')) === 3);
    expect(answer).toMatchObject({ status: 503, body: { code: 'outcome_unknown', accountId: 'lost-bare' } });
    expect(await accountOf('lost-bare')).toMatchObject({ balance: 15, version: 4 });
  });
});

it('leaves every account provable', async () => {
  expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
});
