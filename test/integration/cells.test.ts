// Two cells behind HAProxy as docs/cells/haproxy.cfg sets it. Each has a database, API processes,
// a relay and a worker of its own; they share nothing but the broker.
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect } from 'vitest';
import { calls } from '../../src/api/calls/table.ts';
import { problems } from '../../src/shared/problems.ts';
import { type CellsProxy, hasHaproxyOfCells, startCellsHaproxy } from '../support/balancers.ts';
import { bearer, type Cell, keyOf, startCell, startDeadlyProxy } from '../support/cells.ts';
import { type Ended, follow } from '../support/commands.ts';
import {
  cleanUp,
  drained,
  INHERITED,
  type Received,
  send,
  sendPatiently,
  subscribe,
  until,
} from '../support/harness.ts';
import { needing } from '../support/needing.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const BODY_BYTES = 16_384;
const BULK_UPDATES = 100;
/** Between two updates: 2 MB in all. */
const BULK_GAP_BYTES = 20_000;
/** More than two processes take (`maxconn`) and the proxy holds for a cell. */
const HUNG_REQUESTS = 1_300;
/** In the log of HAProxy: too many wait, or it has noticed that no process answers. After a wait it would say sQ. */
const REFUSED_AT_ONCE = / c1\/<NOSRV> \S+ 503 \d+ - - (?:LR|SC)-- /;
const UPDATES = '/v1/balance-updates';

let cells: [Cell, Cell];
/** A key of each cell, bound to its prefix. */
let tokens: [string, string];
let events: [Received[], Received[]];
let proxy: CellsProxy;

const withHaproxy = needing('HAProxy 2.6 or later: apt-get install haproxy', hasHaproxyOfCells);

const urlsOf = () => cells.map(({ apis }) => apis.map((api) => api.url()));
/** Again while all of the cell is out, as a busy machine may have it for a moment. */
const post = (index: 0 | 1, resource: string, body: unknown, url = proxy.url) =>
  sendPatiently(url, 'POST', resource, body, bearer(tokens[index]));
const get = (index: 0 | 1, resource: string, url = proxy.url) =>
  sendPatiently(url, 'GET', resource, undefined, bearer(tokens[index]));

async function accountsIn({ database }: Cell): Promise<string[]> {
  const { rows } = await database.pool.query('SELECT account_id FROM account ORDER BY account_id');
  return rows.map((row) => row.account_id);
}

async function changesIn({ database }: Cell): Promise<number> {
  return (await database.pool.query('SELECT sum(version)::integer AS changes FROM account')).rows[0].changes;
}

async function balanceOf({ database }: Cell, id: string) {
  const { rows } = await database.pool.query('SELECT balance, held FROM account WHERE account_id = $1', [id]);
  return rows[0] as { balance: number; held: number };
}

/** A body of so many bytes. */
const padded = (fields: string, bytes: number) => `{${' '.repeat(bytes - fields.length - 2)}${fields}}`;

withHaproxy.describe('two cells behind HAProxy', () => {
  beforeAll(async () => {
    // One process of the second cell is down throughout.
    cells = await Promise.all([startCell('c1:', 2), startCell('c2:', 1)]);
    tokens = [await keyOf(cells[0], 'shop', 'c1:'), await keyOf(cells[1], 'shop', 'c2:')];
    events = [await subscribe(cells[0].broker), await subscribe(cells[1].broker)];
    proxy = await startCellsHaproxy(urlsOf());
  });
  afterAll(cleanUp);

  withHaproxy.it('an account meets its own cell in every call, however the call names it', async () => {
    async function useEveryCall(index: 0 | 1): Promise<void> {
      const cell = cells[index];
      const [alice, bob] = [`${cell.prefix}alice`, `${cell.prefix}bob`];
      const encoded = encodeURIComponent(alice);
      const used = new Set<string>();
      let changes = 0;
      async function call(id: string, method: 'GET' | 'POST' | 'PATCH', resource: string, body?: unknown, made = 0) {
        const answer = await sendPatiently(proxy.url, method, resource, body, bearer(tokens[index]));
        expect([200, 201], `${id} ${JSON.stringify(answer.body)}`).toContain(answer.status);
        used.add(id);
        changes += made;
        return answer.body;
      }
      await call('createAccount', 'POST', '/v1/accounts', { id: alice });
      await call(
        'createAccount',
        'POST',
        '/v1/accounts',
        `{"overdraftLimit":0,"id" : "${bob.replace(':', '\\u003a')}"}`,
      );
      await call('changeAccount', 'PATCH', `/v1/accounts/${encoded}`, { overdraftLimit: 1000 }, 1);
      const { eventId } = await call('updateBalance', 'POST', UPDATES, { accountId: alice, amount: 500 }, 1);
      await call('updateBalance', 'POST', UPDATES, padded(`"amount":1,"accountId":"${alice}"`, BODY_BYTES), 1);
      const update = { amount: 1, accountId: alice };
      await call('updateBalances', 'POST', `${UPDATES}/bulk`, { updates: [update, update] }, 2);
      await call('updateBalances', 'POST', `${UPDATES}/bulk`, { atomic: true, updates: [update, update] }, 2);
      const { transferId } = await call('transfer', 'POST', '/v1/transfers', { from: alice, to: bob, amount: 9 }, 2);
      const legs = [
        { amount: -2, accountId: alice },
        { amount: 2, accountId: bob },
      ];
      // Names in metadata are not accounts.
      await call('transfer', 'POST', '/v1/transfers', { metadata: { from: 'x', to: 'y' }, legs }, 2);
      const transfers = [{ legs }, { from: alice, to: bob, amount: 1 }];
      await call('transfers', 'POST', '/v1/transfers/bulk', { transfers }, 4);
      await call('transfers', 'POST', '/v1/transfers/bulk', { transfers: transfers.reverse() }, 4);
      await call('readTransfer', 'GET', `/v1/transfers/${encodeURIComponent(transferId)}`);
      await call('reverse', 'POST', '/v1/reversals', { of: transferId, amount: 4 }, 2);
      await call('reverse', 'POST', '/v1/reversals', { of: eventId }, 1);
      const holds = `/v1/accounts/${alice}/holds`;
      await call('placeHold', 'POST', holds, { holdId: 'h1', amount: 30 }, 1);
      await call('placeHold', 'POST', holds, { holdId: 'h2', amount: 5 }, 1);
      await call('changeHold', 'PATCH', `${holds}/h1`, { amount: 20 }, 1);
      await call('captureHold', 'POST', `${holds}/h1/capture`, { amount: 5, final: false, metadata: { to: 'y' } }, 1);
      await call('captureHold', 'POST', `/v1/accounts/${encoded}/holds/h1/capture`, { to: bob }, 2);
      await call('releaseHold', 'POST', `${holds}/h2/release`, {}, 1);
      await call('readHold', 'GET', `${holds}/h1`);
      await call('listHolds', 'GET', `${holds}?limit=1`);
      for (const prefix of [alice, cell.prefix, encodeURIComponent(cell.prefix)]) {
        const { accounts } = await call('listAccounts', 'GET', `/v1/accounts?limit=9&prefix=${prefix}`);
        expect(accounts.map(({ id }: { id: string }) => id)).toEqual(prefix === alice ? [alice] : [alice, bob]);
      }
      await call('readAccount', 'GET', `/v1/accounts/${encoded}`);
      await call('readPastBalance', 'GET', `/v1/accounts/${encoded}/balance?version=1`);
      await call('readEntries', 'GET', `/v1/accounts/${encoded}/entries`);
      await call('exportEntries', 'GET', `/v1/accounts/${encoded}/entries/export?format=jsonl&reference=none`);
      await call('readChainHead', 'GET', `/v1/accounts/${encoded}/chain-head`);
      await call('readChainSegments', 'GET', `/v1/accounts/${encoded}/chain-segments`);
      await call('verifyAccount', 'GET', `/v1/accounts/${encoded}/verification`);
      expect([...used].sort()).toEqual(calls.map(({ id }) => id).sort());

      // Far beyond what the proxy looks at.
      const items = Array(BULK_UPDATES)
        .fill(JSON.stringify(update))
        .join(`,${' '.repeat(BULK_GAP_BYTES)}`);
      const { results } = await call(
        'updateBalances',
        'POST',
        `${UPDATES}/bulk`,
        `{"updates":[${items}]}`,
        BULK_UPDATES,
      );
      expect(results.every(({ status }: Answered) => status === 200)).toBe(true);

      expect(await accountsIn(cell)).toEqual([alice, bob]);
      expect(await changesIn(cell)).toBe(changes);
      expect(await drained(cell.database)).toMatchObject({ offendingAccounts: 0, ledgerEntries: changes + 2 });
      await until('its subscriber has all events', () => events[index].length >= changes + 2);
    }
    await Promise.all([useEveryCall(0), useEveryCall(1)]);
    for (const [index, { prefix }] of cells.entries()) {
      expect(events[index]?.filter(({ body }) => !body.data.accountId.startsWith(prefix))).toEqual([]);
    }
  });

  withHaproxy.it('what names no account, or one of no cell, is refused in a sentence', async () => {
    const changes = await changesIn(cells[0]);
    const refused = (answer: Awaited<ReturnType<typeof send>>, detail: RegExp, what: string) => {
      const { title } = problems.invalid_request;
      const problem = {
        type: 'urn:highload-balance:problem:invalid_request',
        title,
        status: 400,
        code: 'invalid_request',
      };
      expect(answer, what).toMatchObject({ status: 400, body: { ...problem, detail: expect.stringMatching(detail) } });
      expect(answer.headers.get('content-type')).toBe('application/problem+json');
    };
    const named = /^No account was found in it/;
    for (const resource of ['/v1/accounts', '/v1/accounts?limit=1', '/v1/nothing']) {
      refused(await get(0, resource), named, resource);
    }
    const unnamed: [string, unknown][] = [
      ['/v1/accounts', { asset: 'USD/2' }],
      [UPDATES, { amount: 1 }],
      [UPDATES, { accountId: null, amount: 1 }],
      [UPDATES, '{"accountId":"c1:alice'],
      [UPDATES, ''],
      [UPDATES, 'nonsense'],
      // Its account is beyond what the proxy looks at, and an escaped name is none that the service takes.
      [UPDATES, padded('"amount":1,"accountId":"c1:alice"', 3 * BODY_BYTES)],
      [UPDATES, '{"amount":1,"\\u0061ccountId":"c1:alice"}'],
      [`${UPDATES}/bulk`, { updates: [] }],
      ['/v1/transfers', { from: { accountId: 'c1:alice' }, to: 'c1:bob', amount: 1 }],
      ['/v1/transfers/bulk', { transfers: [{ amount: 1 }] }],
      ['/v1/reversals', {}],
    ];
    for (const [resource, body] of unnamed)
      refused(await post(0, resource, body), named, JSON.stringify(body).slice(0, 90));
    const nobodys = /^No cell has this account/;
    for (const id of ['carol', 'c3:carol', 'c1', 'C1:carol', 'c', '']) {
      const resources = [`/v1/accounts?prefix=${id}`, `/v1/transfers/${id}:1:mwtowow0`];
      if (id !== '') resources.push(`/v1/accounts/${id}`);
      for (const resource of resources) refused(await get(0, resource), nobodys, resource);
      refused(await post(0, '/v1/accounts', { id }), nobodys, id);
      refused(await post(0, '/v1/reversals', { of: `${id}:1:mwtowow0` }), nobodys, id);
      refused(await post(0, '/v1/transfers', { from: 'c1:alice', to: id, amount: 1 }), nobodys, id);
    }
    for (const resource of ['/', '/metrics', '/readyz', '/livez', '/console', '/v1']) {
      expect((await fetch(proxy.url + resource)).status, resource).toBe(404);
    }
    for (const resource of ['/docs', '/openapi.json', '/asyncapi.json']) {
      expect((await fetch(proxy.url + resource)).status, resource).toBe(200);
    }
    // Twice the same member: the proxy and the service might read different ones.
    const twice = await post(0, '/v1/accounts', '{"id":"c1:carol","id":"c2:carol"}');
    expect(twice.body).toMatchObject({ code: 'invalid_request', errors: expect.anything() });
    expect(await changesIn(cells[0])).toBe(changes);
    for (const cell of cells) expect(await accountsIn(cell)).toEqual([`${cell.prefix}alice`, `${cell.prefix}bob`]);
  });

  withHaproxy.it('no request spans two cells, and what tries to changes nothing', async () => {
    const before = [await changesIn(cells[0]), await changesIn(cells[1])];
    const holds = '/v1/accounts/c1:alice/holds';
    expect((await post(0, holds, { holdId: 'spanning', amount: 1 })).status).toBe(201);
    const leg = (accountId: string, amount: number) => ({ accountId, amount });
    const byProxy: [string, unknown][] = [
      ['/v1/transfers', { from: 'c1:alice', to: 'c2:alice', amount: 1 }],
      ['/v1/transfers', { legs: [leg('c1:alice', -1), leg('c2:alice', 1)] }],
      [`${holds}/spanning/capture`, { to: 'c2:alice' }],
    ];
    for (const [resource, body] of byProxy) {
      const answer = await post(0, resource, body);
      expect(answer, JSON.stringify(body)).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
      expect(answer.body.detail).toMatch(
        /^Its accounts are in different cells, and no request spans two\. Nothing was changed\./,
      );
    }
    const one = leg('c1:alice', 1);
    const byService: [string, unknown][] = [
      ['/v1/transfers', { legs: [leg('c1:alice', -2), leg('c1:bob', 1), leg('c2:alice', 1)] }],
      [`${UPDATES}/bulk`, { updates: [one, leg('c2:alice', 1)] }],
      [`${UPDATES}/bulk`, { updates: [one, leg('c2:alice', 1)], atomic: true }],
      ['/v1/transfers/bulk', { transfers: [{ from: 'c1:alice', to: 'c1:bob', amount: 1 }, byProxy[0]?.[1]] }],
    ];
    for (const [resource, body] of byService) {
      expect(await post(0, resource, body), JSON.stringify(body)).toMatchObject({
        status: 403,
        body: {
          ...{ code: 'forbidden', accountId: 'c2:alice' },
          detail: 'This API key is only valid for accounts whose id begins with c1:.',
        },
      });
    }
    expect([await changesIn(cells[0]), await changesIn(cells[1])]).toEqual([Number(before[0]) + 1, before[1]]);
  });

  withHaproxy.it('a cell that is asked for the account of another opens none, whatever led there', async () => {
    const { inside } = proxy;
    const [first, second] = inside as [string, string];
    const wanted = { id: 'c1:dave' };
    // By the address of the other cell; by a line of the map that was changed; by one with a mistake.
    expect(await post(0, '/v1/accounts', wanted, second)).toMatchObject({
      status: 401,
      body: { code: 'unauthorized' },
    });
    expect(await post(1, '/v1/accounts', wanted, second)).toMatchObject({
      status: 403,
      body: { code: 'forbidden', accountId: 'c1:dave' },
    });
    expect(await get(0, '/v1/accounts', first)).toMatchObject({ status: 200 });
    expect(await get(0, '/v1/accounts', second)).toMatchObject({ status: 401 });
    const changed = await startCellsHaproxy(urlsOf(), (text) => text.replace('c1: c1', 'c1: c2'));
    expect(await post(0, '/v1/accounts', wanted, changed.url)).toMatchObject({
      status: 401,
      body: { code: 'unauthorized' },
    });
    expect(await post(1, '/v1/accounts', wanted, changed.url)).toMatchObject({
      status: 403,
      body: { code: 'forbidden' },
    });
    await changed.stop();
    const mistaken = await startCellsHaproxy(urlsOf(), (text) => text.replace('c1: c1', 'c1: one'));
    expect(await post(0, '/v1/accounts', wanted, mistaken.url)).toMatchObject({
      status: 500,
      body: {
        code: 'internal',
        title: problems.internal.title,
        detail: expect.stringMatching(/^cells\.map names a cell/),
      },
    });
    await mistaken.stop();
    // The first cell is one that existed before: its accounts have no prefix of a cell.
    const grown = await startCellsHaproxy(urlsOf(), (text) =>
      text.replaceAll('cells.map,none', 'cells.map,c1').replace('c1: c1\n', 'c2:east: c1\n'),
    );
    const unbound = bearer(await keyOf(cells[0], 'old', null));
    const as = (resource: string, body: unknown) => sendPatiently(grown.url, 'POST', resource, body, unbound);
    expect(await as('/v1/accounts', { id: 'erin' })).toMatchObject({ status: 201 });
    expect(await as(UPDATES, { accountId: 'erin', amount: 5 })).toMatchObject({ status: 200 });
    expect(await as('/v1/accounts', { id: 'c2:dave' })).toMatchObject({ status: 401 });
    expect(await as('/v1/transfers', { from: 'erin', to: 'c2:alice', amount: 1 })).toMatchObject({ status: 400 });
    // An id that is not a prefix, although its changes look as if it were.
    expect(await as('/v1/accounts', { id: 'c2' })).toMatchObject({ status: 201 });
    const { body: change } = await as(UPDATES, { accountId: 'c2', amount: 5 });
    expect(await as('/v1/reversals', { of: change.eventId })).toMatchObject({ status: 200 });
    // The longest prefix counts.
    expect(await as('/v1/accounts', { id: 'c2:east:erin' })).toMatchObject({ status: 201 });
    expect(await post(1, '/v1/accounts', { id: 'erin' }, grown.url)).toMatchObject({ status: 401 });
    expect(await post(1, '/v1/accounts', { id: 'c2:bob' }, grown.url)).toMatchObject({ status: 200 });
    await grown.stop();
    expect(await accountsIn(cells[0])).toEqual(['c1:alice', 'c1:bob', 'c2', 'c2:east:erin', 'erin']);
    expect(await accountsIn(cells[1])).toEqual(['c2:alice', 'c2:bob']);
  });

  withHaproxy.it('what hangs or fails in one cell costs the other nothing', async () => {
    const [hurt, well] = cells;
    const balances = async () => [
      (await balanceOf(hurt, 'c1:alice')).balance,
      (await balanceOf(well, 'c2:alice')).balance,
    ];
    const [hurtBefore = 0, wellBefore = 0] = await balances();
    let wellApplied = 0;
    async function wellServes() {
      for (let count = 0; count < 10; count += 1) {
        expect(await post(1, UPDATES, { accountId: 'c2:alice', amount: 1 })).toMatchObject({ status: 200 });
        wellApplied += 1;
      }
    }
    const signal = (name: NodeJS.Signals) => {
      for (const { child } of [...hurt.apis, hurt.worker]) child.kill(name);
    };
    // Frozen: its processes take what they may, the proxy holds some more, and refuses the rest without a wait.
    const statuses = new Map<number, number>();
    signal('SIGSTOP');
    const headers = { 'content-type': 'application/json', ...bearer(tokens[0]) };
    const request = { method: 'POST', headers, body: JSON.stringify({ accountId: 'c1:alice', amount: 1 }) };
    const sending = Array.from({ length: HUNG_REQUESTS }, async () => {
      const answer = await fetch(proxy.url + UPDATES, request);
      await answer.arrayBuffer();
      statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
    });
    try {
      await until('the proxy refuses some at once', () => REFUSED_AT_ONCE.test(proxy.log()));
      await wellServes();
    } finally {
      signal('SIGCONT');
      await Promise.allSettled(sending);
    }
    await Promise.all(sending);
    expect([...statuses.keys()].filter((status) => status !== 200 && status !== 503)).toEqual([]);
    expect(statuses.get(200)).toBeGreaterThan(0);
    expect((await balances())[0]).toBe(hurtBefore + (statuses.get(200) ?? 0));

    // Without its database: no process of it is ready, and none of the other cell's takes over.
    const name = new URL(hurt.database.url).pathname.slice(1);
    const asAdministrator = (statement: string) => well.database.pool.query(statement);
    await asAdministrator(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    const end = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`;
    hurt.database.pool.on('error', () => {});
    await asAdministrator(end);
    const reading = () => send(proxy.url, 'GET', '/v1/accounts/c1:alice', undefined, bearer(tokens[0]));
    await until('all of it is out', async () => (await reading()).body.code === 'overloaded');
    await wellServes();
    const opening = await send(proxy.url, 'POST', '/v1/accounts', { id: 'c1:frank' }, bearer(tokens[0]));
    expect(opening).toMatchObject({ status: 503, body: { code: 'overloaded' } });
    await asAdministrator(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
    await until('it is back', async () => (await reading()).status === 200);
    await wellServes();
    expect(await balances()).toEqual([hurtBefore + (statuses.get(200) ?? 0), wellBefore + wellApplied]);
    expect(await accountsIn(well)).toEqual(['c2:alice', 'c2:bob']);
  });

  withHaproxy.describe('examples/transfer-between-cells.ts', () => {
    const AMOUNT = 250;
    const STEPS = {
      hold: /POST \/v1\/accounts\/c1%3A[^/]+\/holds$/,
      credit: /POST \/v1\/accounts\/c2%3Aclearing\.UNIT\/holds$/,
      capture: /POST .*c2%3Aclearing\.UNIT\/holds\/.*\/capture$/,
      cancel: /POST .*c2%3Aclearing\.UNIT\/holds\/.*\/release$/,
      debit: /POST \/v1\/accounts\/c1%3A[^/]+\/holds\/.*\/capture$/,
      free: /POST \/v1\/accounts\/c1%3A[^/]+\/holds\/.*\/release$/,
    };

    beforeAll(async () => {
      for (const index of [0, 1] as const) {
        const id = `${cells[index].prefix}clearing.UNIT`;
        await post(index, '/v1/accounts', { id, overdraftLimit: Number.MAX_SAFE_INTEGER });
      }
    });

    /** With accounts of its own: the payer has 1,000. */
    async function order(name: string, receiver: object = {}) {
      const [from, to] = [`c1:from-${name}`, `c2:to-${name}`];
      await post(0, '/v1/accounts', { id: from });
      await post(0, UPDATES, { accountId: from, amount: 1000 });
      await post(1, '/v1/accounts', { id: to, ...receiver });
      return { order: name, from, to };
    }
    type Order = Awaited<ReturnType<typeof order>>;

    const change = (index: 0 | 1, id: string, what: object) =>
      sendPatiently(proxy.url, 'PATCH', `/v1/accounts/${id}`, what, bearer(tokens[index]));

    function start({ order, from, to }: Order, amount = AMOUNT, url = proxy.url) {
      const args = ['--order', order, '--from', from, '--to', to, '--amount', String(amount)];
      const file = path.join(ROOT, 'examples/transfer-between-cells.ts');
      const [c1, c2] = tokens;
      const env = { ...INHERITED, BALANCE_URL: url, BALANCE_TOKEN_C1: c1, BALANCE_TOKEN_C2: c2 };
      return follow(spawn(process.execPath, ['--conditions=highload-balance-source', file, ...args], { env }));
    }
    const run = (given: Order, amount?: number): Promise<Ended> => start(given, amount).whenEnded;

    async function stateOf({ from, to }: Order) {
      const [payer, receiver] = [await balanceOf(cells[0], from), await balanceOf(cells[1], to)];
      return { payer: payer.balance, held: payer.held, receiver: receiver.balance };
    }
    const clearing = async () => [
      (await balanceOf(cells[0], 'c1:clearing.UNIT')).balance,
      (await balanceOf(cells[1], 'c2:clearing.UNIT')).balance,
    ];

    /**
     * Runs it once for each step, and kills it when the cell has done the step and it does not know.
     * It keeps nothing itself, so a kill before the next request leaves the same.
     */
    async function killAfter(given: Order, steps: (keyof typeof STEPS)[]): Promise<void> {
      const deadly = await startDeadlyProxy(proxy.url);
      for (const step of steps) {
        const { child, whenEnded } = start(given, AMOUNT, deadly.url);
        deadly.arm(child, STEPS[step]);
        expect(await whenEnded, `killed after ${step}`).toMatchObject({ code: null });
        const { payer, held, receiver } = await stateOf(given);
        expect(payer - held + receiver, `can be spent after ${step}`).toBeLessThanOrEqual(1000);
      }
    }

    withHaproxy.it('moves the money once, or gives it back once, when it is killed after every step', async () => {
      const moved = await order('moved');
      const refused = await order('refused', { maxBalance: AMOUNT - 1 });
      const before = await clearing();
      await Promise.all([
        killAfter(moved, ['hold', 'credit', 'capture', 'debit']),
        killAfter(refused, ['hold', 'credit', 'capture', 'cancel', 'free']),
      ]);
      await change(1, refused.to, { maxBalance: null }); // too late
      expect(await Promise.all([run(moved), run(refused)])).toMatchObject([
        { code: 0, err: '' },
        { code: 3, err: '' },
      ]);
      const after = { payer: 1000 - AMOUNT, held: 0, receiver: AMOUNT };
      expect(await stateOf(moved)).toEqual(after);
      expect(await stateOf(refused)).toEqual({ payer: 1000, held: 0, receiver: 0 });
      expect(await clearing()).toEqual([Number(before[0]) + AMOUNT, Number(before[1]) - AMOUNT]);

      // Long after: the keys have expired, and the accounts are frozen.
      for (const { database } of cells) await database.pool.query('TRUNCATE idempotency_key');
      await change(0, moved.from, { status: 'frozen' });
      await change(1, moved.to, { status: 'frozen' });
      // And the order is that one only.
      expect(await Promise.all([run(moved), run(moved, AMOUNT + 1)])).toMatchObject([
        { code: 0, err: '' },
        { code: 1, err: expect.stringContaining('hold') },
      ]);
      expect(await stateOf(moved)).toEqual(after);
    });

    withHaproxy.it('is one transfer however many run at once, and all of them say what became of it', async () => {
      const given = await order('many');
      const running = [run(given), run(given), run(given)];
      await change(1, given.to, { status: 'frozen' });
      running.push(run(given));
      await change(1, given.to, { status: 'open' });
      const ended = await Promise.all(running);
      const moved = ended[0]?.code === 0;
      expect(ended.map(({ code, err }) => ({ code, err }))).toEqual(
        ended.map(() => ({ code: moved ? 0 : 3, err: '' })),
      );
      expect(await stateOf(given)).toEqual({ payer: moved ? 750 : 1000, held: 0, receiver: moved ? 250 : 0 });
    });

    withHaproxy.it("gives the money back when the receiver's cell was told to, before it credited it", async () => {
      const given = await order('given-up');
      await killAfter(given, ['credit']);
      const released = await post(1, '/v1/accounts/c2:clearing.UNIT/holds/given-up/release', {});
      expect(released).toMatchObject({ status: 200 });
      expect(await run(given)).toMatchObject({ code: 3, err: '' });
      expect(await stateOf(given)).toEqual({ payer: 1000, held: 0, receiver: 0 });
    });

    withHaproxy.it('the commands of docs/cells.md answer as it says', async () => {
      const page = await readFile(path.join(ROOT, 'docs/cells.md'), 'utf8');
      const { scripts } = JSON.parse(await readFile(path.join(ROOT, 'package.json'), 'utf8'));
      const shown = [...page.matchAll(/^ {4}\$ (.*)\n((?: {4}(?!\$ ).*\n)*)/gm)];
      expect(shown.length).toBeGreaterThanOrEqual(11);
      const lines = shown.map(([, command = '']) =>
        command
          .replaceAll('localhost:3000', new URL(proxy.url).host)
          // npm itself would only take time.
          .replace(/npm run --silent (\S+) --/, (_, name) => scripts[name].replace('src/local/bootstrap.mjs ', ''))
          .replace(/(?<=^|\()node |(?<= )node (?=src)/, `${process.execPath} `),
      );
      const env = {
        ...{ ...INHERITED, BALANCE_URL: proxy.url },
        ...{ DATABASE_C1: cells[0].database.url, DATABASE_C2: cells[1].database.url },
      };
      const script = lines.map((line) => `${line}\necho; echo ----`).join('\n');
      const { code, out, err } = await follow(spawn('sh', ['-e', '-c', script], { cwd: ROOT, env })).whenEnded;
      expect(code, err).toBe(0);
      const outputs = out.split('\n----\n');
      for (const [index, [, command, expected = '']] of shown.entries()) {
        if (expected !== '') expect(shape(outputs[index] ?? ''), command).toBe(shape(expected));
      }
    });

    withHaproxy.it('holds nothing for what cannot be, and the clearing accounts of all cells add up to 0', async () => {
      const poor = await order('poor');
      expect(await run(poor, 1001)).toMatchObject({ code: 1, err: expect.stringContaining('does not cover') });
      expect(await run(await order('euros', { asset: 'EUR/2' }))).toMatchObject({ code: 2, out: '' });
      expect(await stateOf(poor)).toEqual({ payer: 1000, held: 0, receiver: 0 });
      expect((await clearing()).reduce((sum, balance) => sum + balance)).toBe(0);
      for (const cell of cells) expect(await drained(cell.database)).toMatchObject({ offendingAccounts: 0 });
    });
  });
});

/** Times and epochs differ from run to run. */
const shape = (text: string) =>
  text
    .replaceAll(/^ {4}/gm, '')
    .trim()
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')
    .replaceAll(/(?<="eventId":"c\d:\w+:\d+:)[0-9a-z]{8}/g, 'EPOCH');

interface Answered {
  status: number;
}
