// The console: a stream that tells the truth to those who may read it, and a page that shows it in
// a real browser.

import { readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { hasBrowser, openBrowser } from '../support/browser.ts';
import { type ConsolePages, consolePages, pixelsOf } from '../support/console-page.ts';
import { countOf, type Watcher, watch } from '../support/console-watcher.ts';
import {
  type Broker,
  cleanUp,
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
import { needing } from '../support/needing.ts';

const UPDATES = '/v1/balance-updates';

let database: Database;
let broker: Broker;
let url: string;
let key: Record<string, string>;
let token: string;

beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
  ({ url } = await startApiHere(database, broker, { AUTH: 'required' }));
  await startWorkerHere(database, broker);
  ({ headers: key, token } = await createApiKey(database, 'operator'));
  await send(url, 'POST', '/v1/accounts', { id: 'alice' }, key);
  await drained(database); // watchers see only what comes after it
});
afterAll(cleanUp);

const credit = (amount = 1, reference?: string) =>
  send(url, 'POST', UPDATES, { accountId: 'alice', amount, ...(reference ? { reference } : {}) }, key);

describe('the stream', () => {
  it('needs a key with the scope read, which the page itself does not', async () => {
    expect((await send(url, 'GET', '/console/stream')).body.code).toBe('unauthorized');
    const writer = (await createApiKey(database, 'writer', ['write'])).headers;
    expect((await send(url, 'GET', '/console/stream', undefined, writer)).body.code).toBe('forbidden');
    const first = await fetch(url, { redirect: 'manual' });
    expect({ status: first.status, to: first.headers.get('location') }).toEqual({ status: 302, to: 'console' });
    const page = await fetch(url);
    expect(page.url).toBe(`${url}/console`);
    expect(page.status).toBe(200);
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
    const files = [...(await page.text()).matchAll(/(?:src|href)="(console\/[^"]+)"/g)].map(
      ([, file]) => file as string,
    );
    expect(files.length).toBeGreaterThan(3);
    for (const file of files) expect((await fetch(`${url}/${file}`)).status, file).toBe(200);
    const folder = new URL('../../src/api/console/page/', import.meta.url);
    for (const file of (await readdir(folder)).filter((name) => name.endsWith('.js'))) {
      expect((await fetch(`${url}/console/files/${file}`)).status, file).toBe(200);
    }
    for (const path of [
      '/console/files/console.html',
      '/console/files/..%2fconsole-routes.ts',
      '/console/files/constructor',
    ])
      expect((await send(url, 'GET', path)).body, path).toMatchObject({
        code: 'not_found',
        detail: expect.stringContaining('/openapi.json'),
      });
  });

  it('reports rates that add up to what was sent, and each event once', async () => {
    const watcher = await watch(url, key);
    await until(
      'its subscription is there',
      () => watcher.live.at(-1)?.broker === 'connected' && watcher.live.length > 1,
    );
    const applied: string[] = [];
    for (let round = 0; round < 30; round += 1) {
      const answers = await Promise.all(Array.from({ length: 5 }, () => credit()));
      applied.push(...answers.map(({ body }) => body.eventId));
      await delay(20); // of more than 400 a second some are left out
    }
    for (let declined = 0; declined < 10; declined += 1) expect((await credit(-1_000_000)).status).toBe(400);
    await until('all events have come', () => watcher.events.length >= applied.length);
    await until(
      'the figures are reported',
      () => countOf(watcher, 'accepted') > 149 && countOf(watcher, 'declined') > 9,
    );
    expect(Math.abs(countOf(watcher, 'accepted') - 150)).toBeLessThan(8); // the clock of the readings has milliseconds
    expect(Math.abs(countOf(watcher, 'declined') - 10)).toBeLessThan(1);
    expect(watcher.events.map(({ id }) => id).sort()).toEqual(applied.sort());
    const busiest = watcher.live.reduce((most, one) =>
      (one.figures?.accepted ?? 0) > (most.figures?.accepted ?? 0) ? one : most,
    );
    expect(busiest).toMatchObject({ database: 'ok', broker: 'connected', processes: 1 });
    expect(busiest.figures?.p50Ms).toBeGreaterThan(0);
    expect(busiest.figures?.p99Ms).toBeGreaterThanOrEqual(busiest.figures?.p50Ms as number);
    expect(busiest.figures?.batchSize).toBeGreaterThanOrEqual(1);
    await until('the ledger has all', () => watcher.live.at(-1)?.figures?.pending === 0);
    watcher.leave();
  });

  it('answers HEAD at once, and keeps no place for it', async () => {
    for (let count = 0; count < 25; count += 1) {
      const { status } = await fetch(`${url}/console/stream`, {
        method: 'HEAD',
        headers: key,
        signal: AbortSignal.timeout(5000),
      });
      expect(status).toBe(200);
    }
  });

  it('refuses the 21st watcher until one of them is gone', async () => {
    const watchers: Watcher[] = [];
    for (let index = 0; index < 20; index += 1) watchers.push(await watch(url, key));
    const refused = await send(url, 'GET', '/console/stream', undefined, key);
    expect(refused).toMatchObject({ status: 503, body: { code: 'overloaded' } });
    for (const watcher of watchers) watcher.leave();
    await until('there is room again', async () => {
      const response = await fetch(`${url}/console/stream`, { headers: key });
      await response.body?.cancel();
      return response.status === 200;
    });
  });

  it('ends when the API stops, so that the stop is not held up', async () => {
    const { url: stopping, stop } = await startApiHere(database, broker, { RELAY: 'off' });
    const watcher = await watch(stopping, {});
    await until('it reports something', () => watcher.live.length > 0);
    const startedAtMs = performance.now();
    await stop();
    await watcher.ended;
    expect(performance.now() - startedAtMs).toBeLessThan(11_000); // 12 s where it waits for the stream
  });
});

describe('the balances of an account over time', () => {
  const balances = async (id: string) =>
    (await send(url, 'GET', `/console/accounts/${id}/balances`, undefined, key)).body;

  it('are those of its entries, of a long history of some of them, the first and the last included', async () => {
    const blocker = await database.pool.connect();
    await blocker.query('BEGIN; LOCK TABLE ledger IN EXCLUSIVE MODE'); // the worker has to wait
    const { body: account } = await send(url, 'POST', '/v1/accounts', { id: 'longlived' }, key);
    const none = { accountId: 'longlived', ledgerVersion: null, every: 1, points: [] };
    expect(await balances('longlived')).toEqual(none);
    await blocker.query('COMMIT');
    blocker.release();
    await drained(database);
    expect(await balances('longlived')).toEqual({
      ...none,
      ledgerVersion: 0,
      points: [[Date.parse(account.createdAt), 0]],
    });
    const bulk = (amounts: number[]) =>
      send(
        url,
        'POST',
        `${UPDATES}/bulk`,
        { updates: amounts.map((amount) => ({ accountId: 'longlived', amount })) },
        key,
      );
    await bulk([5, -2, 4]);
    await drained(database);
    const entries = (await send(url, 'GET', '/v1/accounts/longlived/entries', undefined, key)).body.entries;
    expect((await balances('longlived')).points).toEqual(
      entries
        .map((entry: { createdAt: string; balance: number }) => [Date.parse(entry.createdAt), entry.balance])
        .reverse(),
    );
    for (let round = 0; round < 3; round += 1) await bulk(Array.from({ length: 1000 }, () => 1));
    await drained(database);
    const thinned = await balances('longlived');
    expect(thinned).toMatchObject({ ledgerVersion: 3003, every: 4 });
    expect(thinned.points.length).toBeLessThanOrEqual(1001);
    expect(thinned.points.map(([, balance]: [number, number]) => balance)).toEqual([
      0, // version 0; then 3, 7, 11 and so on to 3003, which left 4 more than its version
      ...Array.from({ length: 751 }, (_, index) => 7 + index * 4),
    ]);
  });

  it('are for keys with the scope read, of accounts that are there', async () => {
    const writer = (await createApiKey(database, 'writer', ['write'])).headers;
    const code = async (id: string, headers: Record<string, string>) =>
      (await send(url, 'GET', `/console/accounts/${id}/balances`, undefined, headers)).body.code;
    expect(await code('alice', {})).toBe('unauthorized');
    expect(await code('alice', writer)).toBe('forbidden');
    expect(await code('nobody', key)).toBe('account_not_found');
    expect(await code('a%20b', key)).toBe('invalid_request');
  });
});

describe('an account is verified over HTTP', () => {
  it('and what someone changed behind its back is named', async () => {
    await send(url, 'POST', '/v1/accounts', { id: 'mallory' }, key);
    for (let index = 0; index < 3; index += 1) {
      await send(url, 'POST', UPDATES, { accountId: 'mallory', amount: 5 }, key);
    }
    await drained(database);
    const verification = async () => (await send(url, 'GET', '/v1/accounts/mallory/verification', undefined, key)).body;
    await until('it has its hashes', async () => (await verification()).unchainedEntries === 0);
    expect(await verification()).toEqual({
      accountId: 'mallory',
      verified: true,
      problems: [],
      version: 3,
      ledgerEntries: 4,
      pendingChanges: 0,
      unchainedEntries: 0,
    });
    await database.pool.query(`UPDATE account SET balance = 16 WHERE account_id = 'mallory'`);
    expect(await verification()).toMatchObject({
      verified: false,
      problems: ['the balance is 16, but the amounts of the entries add up to 15'],
    });
    await database.pool.query(`UPDATE account SET balance = 15 WHERE account_id = 'mallory'`);
  });

  it('but not one with more changes than are looked at in a request', async () => {
    await send(url, 'POST', '/v1/accounts', { id: 'busy' }, key);
    await database.pool.query(`UPDATE account SET version = 100001 WHERE account_id = 'busy'`);
    const answer = await send(url, 'GET', '/v1/accounts/busy/verification', undefined, key);
    expect(answer).toMatchObject({
      status: 400,
      body: { code: 'invalid_request', detail: expect.stringContaining('npm run verify') },
    });
    await database.pool.query(`UPDATE account SET version = 0 WHERE account_id = 'busy'`);
  });
});

needing('Chromium: apt-get install chromium, or name it in CHROMIUM', hasBrowser).describe(
  'the page in a browser',
  () => {
    let browser: Browser;
    let pages: ConsolePages;

    beforeAll(async () => {
      browser = await openBrowser();
      pages = consolePages(browser, url);
    });
    afterAll(() => browser?.close());

    const open = (place = '') => pages.open(place, token);
    const headingsOf = (page: Page, body: string) => page.locator(`table:has(#${body}) th`).count();
    const cellsOf = (page: Page, body: string) => page.locator(`#${body} tr`).first().locator('td').count();
    const text = (page: Page, id: string) => page.locator(`#${id}`).innerText();

    it('asks for a key, says what is wrong with one, and takes one that is right', async () => {
      const page = await pages.open('#account=alice', null);
      await page.getByRole('heading', { name: 'API key' }).waitFor();
      expect(await text(page, 'key-problem')).toBe(''); // nothing was done wrong
      await page.keyboard.press('Escape');
      expect(await text(page, 'link')).toBe('no API key');
      expect(await text(page, 'stale')).toBe('The service needs an API key to show anything. Nothing is known yet.');
      expect(await text(page, 'account-problem')).toBe('');
      await page.getByRole('button', { name: 'API key' }).click();
      await page.getByLabel('Key', { exact: true }).fill('nonsense');
      await page.keyboard.press('Enter');
      await page.locator('#key-problem', { hasText: 'is unknown' }).waitFor();
      await page.getByLabel('Key', { exact: true }).fill(token);
      await page.keyboard.press('Enter');
      await page.locator('#link', { hasText: /^connected$/ }).waitFor();
      await page.locator('#account-balance', { hasText: /\d/ }).waitFor(); // what was asked for before
      expect(await page.locator('#stale').isVisible()).toBe(false);
      await page.getByRole('button', { name: 'API key' }).click();
      expect(await text(page, 'caller')).toBe(
        'In use: the key of operator, for read, write, and admin, of all accounts.',
      );
      await page.getByRole('button', { name: 'Forget the present one' }).click();
      await page.locator('#link', { hasText: 'no API key' }).waitFor();
      await page.context().close();
    });

    it('shows no line of what does not happen, and the values of the lines in their legends', async () => {
      const page = await open();
      await until('it is idle', async () => (await text(page, 'accepted')) === '0');
      await page.locator('#rate-plot + .legend', { hasText: 'accepted 0declined 0refused 0' }).waitFor();
      await until('a line is drawn', async () => (await pixelsOf(page, 'rate-plot', 'accent')) > 0);
      expect([await pixelsOf(page, 'rate-plot', 'bad'), await pixelsOf(page, 'rate-plot', 'second')]).toEqual([0, 0]);
      for (let declined = 0; declined < 10; declined += 1) await credit(-1_000_000);
      await until('the line of declined ones', async () => (await pixelsOf(page, 'rate-plot', 'second')) > 0);
      expect(await pixelsOf(page, 'rate-plot', 'bad')).toBe(0);
      await page.locator('#rate-plot .u-over').hover();
      await page.locator('figure:has(#time-plot) .at', { hasText: /:/ }).waitFor(); // one pointer for all
      await page.context().close();
    });

    it('shows figures and events of what happens, and takes text as text', async () => {
      const page = await open();
      const hostile = '<img src=x onerror=document.title=1>';
      let sending = true;
      const load = (async () => {
        while (sending) await Promise.all([credit(7, hostile), credit(8), credit(-1_000_000)]);
      })();
      onTestFinished(async () => {
        sending = false;
        await load;
      });
      await until('it shows accepted updates', async () => Number((await text(page, 'accepted')).replace(',', '')) > 5);
      expect(Number((await text(page, 'declined')).replace(',', ''))).toBeGreaterThan(2);
      expect(await text(page, 'p99')).toMatch(/^[\d.]+ m?s$/);
      expect(await text(page, 'database')).toBe('ready');
      expect(await text(page, 'broker')).toBe('connected');
      await page.locator('#events tr', { hasText: hostile }).first().waitFor();
      await page
        .locator('#events tr', { hasText: /^alice[\d,]+balance\.credited\+7/ })
        .first()
        .waitFor();
      expect(await cellsOf(page, 'events')).toEqual(await headingsOf(page, 'events'));
      await until('it shows the newest twenty', async () => (await page.locator('#events tr').count()) === 20);
      expect(await page.title()).toBe('highload-balance console');
      expect(await page.locator('#rate-plot canvas').count()).toBe(1);
      await page.locator('#events').hover(); // a link that moved away could not be followed
      await page.locator('#events-held').waitFor();
      const [held] = await page.locator('#events tr').allInnerTexts();
      await delay(600);
      expect((await page.locator('#events tr').allInnerTexts())[0]).toBe(held);
      await page.context().close();
    });

    it('finds an account, and shows its balance, entries, proof and head', async () => {
      await send(url, 'POST', '/v1/accounts', { id: 'bob-1', asset: 'POINTS' }, key);
      for (const amount of [100, -30, 55]) await send(url, 'POST', UPDATES, { accountId: 'bob-1', amount }, key);
      await drained(database);
      const head = async () => (await send(url, 'GET', '/v1/accounts/bob-1/chain-head', undefined, key)).body;
      await until('it has its hashes', async () => (await head()).version === 3);
      const page = await open('#account=bob-1');
      await page.locator('#account-balance', { hasText: '125' }).waitFor();
      expect(await page.locator('#entries tr').count()).toBe(4);
      expect(await cellsOf(page, 'entries')).toBe(await headingsOf(page, 'entries'));
      const entries = await page.locator('#entries tr').allInnerTexts();
      expect(entries[0]).toMatch(/^3\s+balance\.credited\s+\+55\s+125\s+0\s+operator/);
      expect(entries[1]).toMatch(/^2\s+balance\.debited\s+-30\s+70\s+0\s+operator/);
      expect(entries[3]).toMatch(/^0\s+account\.opened\s+0\s+0\s+0\s+operator/);
      expect(await text(page, 'account-asset')).toBe('POINTS');
      expect(await text(page, 'account-ledger')).toBe('3 in the ledger');
      await page.locator('#verified', { hasText: 'yes' }).waitFor();
      expect(await text(page, 'head')).toBe(`version 3: ${(await head()).hash}`);
      expect(await text(page, 'plot-note')).toBe('all 4 entries');
      expect(await page.locator('#holds-view').isVisible()).toBe(false);
      const hold = { holdId: 'ticket', amount: 25, expiresInSeconds: 3600 };
      await send(url, 'POST', '/v1/accounts/bob-1/holds', hold, key);
      await page.getByRole('button', { name: 'Read again' }).click();
      await page.locator('#account-available', { hasText: '100' }).waitFor();
      expect(await text(page, 'account-held')).toBe('25 held');
      expect(await cellsOf(page, 'holds')).toBe(await headingsOf(page, 'holds'));
      expect(await page.locator('#holds tr').allInnerTexts()).toEqual([
        expect.stringMatching(/^ticket\s+25\s+0\s.*in 1 hour/),
      ]);
      await page.goto(`${url}/console#account=nobody`);
      await page.locator('#account-problem', { hasText: 'no such account' }).waitFor();
      expect(await page.locator('#account-view').isVisible()).toBe(false);
      await page.context().close();
    });

    it('shows the opening of an account as it happens, and an account without an entry yet', async () => {
      const page = await open();
      const blocker = await database.pool.connect();
      await blocker.query('BEGIN; LOCK TABLE ledger IN EXCLUSIVE MODE'); // the worker has to wait
      await send(url, 'POST', '/v1/accounts', { id: 'new-1', overdraftLimit: 50 }, key);
      await page.locator('#events tr', { hasText: /^new-10account\.opened00/ }).waitFor();
      await page.locator('#events a', { hasText: 'new-1' }).click();
      await page.locator('#account-limit', { hasText: '50' }).waitFor();
      expect(await text(page, 'account-ledger')).toBe('none in the ledger yet');
      expect(await text(page, 'head')).toBe('none yet');
      expect(await text(page, 'plot-note')).toBe('all 0 entries');
      expect(await page.locator('#entries tr').count()).toBe(0);
      expect(await text(page, 'entries-note')).toBe('No entry is in the ledger yet.');
      await page.locator('#verified', { hasText: 'yes' }).waitFor();
      await blocker.query('COMMIT');
      blocker.release();
      await send(url, 'PATCH', '/v1/accounts/new-1', { status: 'frozen' }, key);
      await page.getByText('It has changed since it was read.').waitFor();
      await drained(database);
      await page.getByRole('button', { name: 'Read again' }).click();
      await page.locator('#entries tr', { hasText: 'account.changed' }).waitFor();
      await page.locator('#account-status', { hasText: 'frozen' }).waitFor();
      expect(await text(page, 'account-version')).toBe('1');
      await page.context().close();
    });

    it('posts an update, and shows answer, event and entry of it', async () => {
      const page = await open('#try');
      const form = page.getByRole('form', { name: 'Update' });
      await form.getByRole('textbox', { name: 'Account', exact: true }).fill('alice');
      await form.getByLabel('Amount, minor units').fill('42');
      await form.getByRole('button', { name: 'Post' }).click();
      const steps = page.locator('#steps > li');
      await steps.filter({ hasText: 'Answer: 200' }).waitFor();
      await steps.filter({ hasText: 'Event, as subscribers get it' }).waitFor();
      await steps.filter({ hasText: 'recorded' }).waitFor();
      const { version, balance } = (await send(url, 'GET', '/v1/accounts/alice', undefined, key)).body;
      for (const step of ['Answer: 200', 'Event, as subscribers', 'Ledger entry']) {
        const shown = JSON.parse(await steps.filter({ hasText: step }).locator('pre').innerText());
        expect(shown.data ?? shown).toMatchObject({ version, balance, amount: 42 });
      }
      await form.getByLabel('Amount, minor units').fill('-99999999');
      await form.getByRole('button', { name: 'Post' }).click();
      await steps.filter({ hasText: 'insufficient_funds' }).waitFor();
      expect(await steps.count()).toBe(2);
      await page.context().close();
    });

    it('makes a transfer, with the keyboard alone, and follows each leg', async () => {
      for (const id of ['try-a', 'try-b']) await send(url, 'POST', '/v1/accounts', { id }, key);
      await send(url, 'POST', UPDATES, { accountId: 'try-a', amount: 500 }, key);
      const page = await open('#try');
      const steps = page.locator('#steps > li');
      const form = page.getByRole('form', { name: 'Transfer' });
      await form.getByLabel('From').focus();
      for (const typed of ['try-a', 'try-b', '120', 'rent']) {
        await page.keyboard.press('ControlOrMeta+A');
        await page.keyboard.type(typed);
        await page.keyboard.press('Tab');
      }
      await page.keyboard.press('Enter'); // on the button that comes next
      await page.getByRole('link', { name: 'Show try-b' }).waitFor();
      for (const done of ['Answer: 200', 'Event of try-a, as', 'Event of try-b, as']) {
        await steps.filter({ hasText: done }).waitFor();
      }
      await until('both entries are there', async () => (await steps.filter({ hasText: 'recorded' }).count()) === 2);
      const shown = async (step: string) =>
        JSON.parse(await steps.filter({ hasText: step }).locator('pre').innerText());
      const { transferId } = await shown('Answer: 200');
      const both = { transferId, reference: 'rent' };
      expect(await shown('Ledger entry of try-a')).toMatchObject({ ...both, amount: -120, balance: 380 });
      expect(await shown('Ledger entry of try-b')).toMatchObject({ ...both, amount: 120, balance: 120 });
      expect((await shown('Event of try-b')).data).toMatchObject({ ...both, amount: 120 });
      expect(await steps.first().innerText()).toMatch(/POST \/v1\/transfers\s+Idempotency-Key: \S+/);
      await form.getByLabel('To').fill('try-nobody');
      await form.getByRole('button', { name: 'Transfer' }).click();
      await steps.filter({ hasText: 'account_not_found' }).waitFor();
      await page.context().close();
    });

    it('places a hold, captures a part of it for another account, and releases the rest', async () => {
      for (const id of ['hold-a', 'hold-b']) await send(url, 'POST', '/v1/accounts', { id }, key);
      await send(url, 'POST', UPDATES, { accountId: 'hold-a', amount: 500 }, key);
      const page = await open('#try');
      const steps = page.locator('#steps > li');
      const shown = async (step: string) =>
        JSON.parse(await steps.filter({ hasText: step }).locator('pre').innerText());
      const placing = page.getByRole('form', { name: 'Hold sets money aside' });
      await placing.getByRole('textbox', { name: 'Account', exact: true }).fill('hold-a');
      await placing.getByLabel('Hold id').fill('seat 12');
      await placing.getByLabel('Amount').fill('200');
      await placing.getByRole('button', { name: 'Place' }).click();
      await steps.filter({ hasText: 'invalid_request' }).waitFor();
      await placing.getByLabel('Hold id').fill('seat:12');
      await placing.getByRole('button', { name: 'Place' }).click();
      await steps.filter({ hasText: 'Answer: 201' }).waitFor();
      await steps.filter({ hasText: 'Event, as subscribers get it' }).waitFor();
      await steps.filter({ hasText: 'recorded' }).waitFor();
      expect(await steps.first().innerText()).not.toContain('Idempotency-Key');
      expect(await shown('Ledger entry')).toMatchObject({
        type: 'hold.placed',
        heldChange: 200,
        hold: { id: 'seat:12' },
      });
      expect((await shown('Event, as')).data.hold.expiresAt).toBe((await shown('Answer: 201')).expiresAt);

      await placing.getByRole('button', { name: 'Place' }).click(); // the same again
      await steps.filter({ hasText: 'Answer: 200' }).waitFor();
      expect(await steps.count()).toBe(2);

      const ending = page.getByRole('form', { name: 'Capture or release this hold' });
      await ending.getByLabel('Amount').fill('201');
      await ending.getByRole('button', { name: 'Capture' }).click();
      await steps.filter({ hasText: 'hold_amount_exceeded' }).waitFor();
      await send(url, 'POST', '/v1/accounts/hold-a/holds/seat:12/capture', { amount: 20, final: false }, key);
      await ending.getByLabel('Amount').fill('30');
      await ending.getByRole('button', { name: 'Release' }).click();
      await steps.filter({ hasText: 'Answer: 200' }).waitFor();
      await steps.filter({ hasText: 'recorded' }).waitFor();
      expect(await shown('Ledger entry')).toMatchObject({ type: 'hold.released', heldChange: -30, held: 150 });
      await ending.getByLabel('Amount').fill('');
      await ending.getByLabel('Capture to account').fill('hold-b');
      await ending.getByRole('button', { name: 'Capture' }).click();
      await until('both entries are there', async () => (await steps.filter({ hasText: 'recorded' }).count()) === 2);
      expect(await shown('Ledger entry of hold-a')).toMatchObject({ amount: -150, balance: 330, held: 0 });
      expect(await shown('Ledger entry of hold-b')).toMatchObject({ amount: 150, balance: 150 });
      await ending.getByRole('button', { name: 'Release' }).click();
      await steps.filter({ hasText: 'hold_closed' }).waitFor();
      await page.context().close();
    });

    it('says when what it shows is not live any more', async () => {
      const { url: leaving, stop } = await startApiHere(database, broker, { RELAY: 'off' });
      const page = await browser.newPage();
      await page.goto(`${leaving}/console`);
      await page.locator('#link', { hasText: /^connected$/ }).waitFor();
      await page.locator('#live', { hasText: 'ready' }).waitFor(); // something is shown that may get stale
      await stop();
      await page.locator('#stale', { hasText: 'Disconnected since' }).waitFor();
      expect(await text(page, 'link')).toBe('disconnected');
      expect(await text(page, 'stale')).toMatch(/^Disconnected since [\d:]+ \(.+\)\. What you see is from [\d:]+\. /);
      await page.close();
    });

    it('asks nobody else, and reports no error', () => {
      expect(pages.problems).toEqual([]);
    });
  },
);
