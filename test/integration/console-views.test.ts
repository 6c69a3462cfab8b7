// The views of the console in a real browser: accounts, entries by filter, holds, transfers, what a
// key may do, and whether anyone can read and use them.
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createKey } from '../../src/cli/api-keys.ts';
import { CHANGE_TYPES } from '../../src/shared/contract.ts';
import { hasBrowser, openBrowser } from '../support/browser.ts';
import { type ConsolePages, consolePages } from '../support/console-page.ts';
import {
  type Broker,
  cleanUp,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  drained,
  insertAccounts,
  send,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { needing } from '../support/needing.ts';

const HOSTILE = '<img src=x onerror=document.title=1>';
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };

needing('Chromium: apt-get install chromium, or name it in CHROMIUM', hasBrowser).describe('the console', () => {
  let database: Database;
  let broker: Broker;
  let url: string;
  let key: Record<string, string>;
  let token: string;
  let transferId: string;
  let browser: Browser;
  let pages: ConsolePages;

  const post = async (path: string, body: object) => (await send(url, 'POST', path, body, key)).body;
  const rows = (page: Page, body: string) => page.locator(`#${body} tr`);
  const shown = (page: Page, body: string, names: string[]) =>
    until(`the rows of ${body}`, async () => {
      const first = await rows(page, body).evaluateAll((all) =>
        (all as unknown as { cells: { textContent: string }[] }[]).map(({ cells }) => cells[0]?.textContent),
      );
      return JSON.stringify(first) === JSON.stringify(names);
    });
  const view = (page: Page) => page.locator('main > section:not([hidden])').getAttribute('id');
  const hash = (page: Page) => new URL(page.url()).hash;

  beforeAll(async () => {
    database = await createDatabase();
    broker = createBroker();
    ({ url } = await startApiHere(database, broker, { AUTH: 'required' }));
    await startWorkerHere(database, broker);
    ({ headers: key, token } = await createApiKey(database, 'operator'));
    for (const id of ['alice', 'bob']) await post('/v1/accounts', { id, asset: 'USD/2' });
    await insertAccounts(database, ...Array.from({ length: 120 }, (_, index) => `p:${String(index).padStart(3, '0')}`));
    await post('/v1/balance-updates', { accountId: 'alice', amount: 9000, reference: HOSTILE });
    ({ transferId } = await post('/v1/transfers', { from: 'alice', to: 'bob', amount: 70, reference: 'rent' }));
    const day = 86_400;
    await post('/v1/accounts/alice/holds', { holdId: 'ticket', amount: 25, expiresInSeconds: 2 * day });
    for (let index = 0; index < 21; index += 1)
      await post('/v1/accounts/alice/holds', { holdId: `z${index}`, amount: 1 });
    await drained(database);
    browser = await openBrowser();
    pages = consolePages(browser, url);
  });
  afterAll(async () => {
    await browser?.close();
    await cleanUp();
  });

  it('lists the accounts whose id begins with what is typed, page by page, and Enter opens the only one', async () => {
    const page = await pages.open('#accounts', token);
    await until('a first page', async () => (await rows(page, 'accounts-list').count()) === 50);
    const find = page.getByLabel('Account id, or its beginning');
    await find.fill('p:');
    await page.locator('#accounts-list tr:first-child', { hasText: 'p:000' }).waitFor();
    expect(hash(page)).toBe('#accounts=p:');
    await page.keyboard.press('Enter'); // of many it opens none
    await page.getByRole('link', { name: 'Next page' }).click();
    await page.locator('#accounts-list tr:first-child', { hasText: 'p:050' }).waitFor();
    await page.getByRole('link', { name: 'Next page' }).click();
    await until('the last page', async () => (await rows(page, 'accounts-list').count()) === 20);
    expect(await page.getByRole('link', { name: 'Next page' }).isVisible()).toBe(false);
    await page.goBack();
    await page.locator('#accounts-list tr:first-child', { hasText: 'p:050' }).waitFor();
    await page.getByRole('link', { name: 'First page' }).click();
    await find.fill('a');
    await shown(page, 'accounts-list', ['alice']);
    await page.keyboard.press('Enter');
    await page.locator('#account-balance', { hasText: '8,930' }).waitFor();
    expect(hash(page)).toBe('#account=alice');
    await page.goBack();
    await shown(page, 'accounts-list', ['alice']);
    await find.fill(HOSTILE);
    await page.locator('#accounts-problem', { hasText: 'prefix must be' }).waitFor();
    await find.fill('nobody');
    await shown(page, 'accounts-list', ['no account begins with nobody']);
    await page.context().close();
  });

  it('is at the place that its address names, through reload, back and forward', async () => {
    const page = await pages.open('#account=alice&type=balance.debited', token);
    await shown(page, 'entries', ['2']);
    await page.reload();
    await shown(page, 'entries', ['2']);
    await page.locator('#entries a', { hasText: 'transfer' }).click();
    await shown(page, 'legs', ['alice', 'bob']);
    expect(decodeURIComponent(hash(page))).toBe(`#transfer=${transferId}`);
    expect(await page.locator('#legs tr').allInnerTexts()).toEqual([
      expect.stringMatching(/^alice\s+-70\s+8,930\s+2$/),
      expect.stringMatching(/^bob\s+\+70\s+70\s+1$/),
    ]);
    expect(await page.locator('#transfer-note').innerText()).toBe('rent');
    await page.locator('#legs a', { hasText: 'bob' }).click();
    await page.locator('#account-balance', { hasText: '70' }).waitFor();
    expect(await page.evaluate('document.activeElement.id')).toBe('account');
    await page.goBack();
    await page.locator('#legs').waitFor();
    await page.goBack();
    await shown(page, 'entries', ['2']);
    await page.goForward();
    await page.locator('#legs').waitFor();
    await page.goto(`${url}/console#transfer=alice:1:abc`);
    await page.locator('#transfer-problem', { hasText: 'no such transfer' }).waitFor();
    expect(await page.locator('#transfer-view').isVisible()).toBe(false);
    for (const unknown of ['', '#', '#elsewhere=1', '#constructor', `#${HOSTILE}`]) {
      await page.goto(`${url}/console${unknown}`);
      expect(await view(page), unknown).toBe('live');
    }
    await page.goto(`${url}/console#account=${encodeURIComponent(HOSTILE)}`);
    await page.locator('#account-id', { hasText: HOSTILE }).waitFor();
    expect(await page.title()).toBe('highload-balance console');
    await page.context().close();
  });

  it('filters entries by each filter of the API, as a part of the address', async () => {
    const page = await pages.open('#account=alice', token);
    await until('all entries', async () => (await rows(page, 'entries').count()) === 25);
    const types = await page.locator('#filter-type option').allTextContents();
    expect(types).toEqual(['any', ...CHANGE_TYPES]);
    const filter = page.getByRole('form', { name: 'Filter the entries' });
    await page.locator('#filter-summary').click();
    const cases: [label: string, value: string, versions: string[]][] = [
      ['Reference', HOSTILE, ['1']],
      ['Transfer id', transferId, ['2']],
      ['Hold id', 'ticket', ['3']],
      ['Reference', 'none has it', []],
    ];
    for (const [label, value, versions] of cases) {
      await filter.getByLabel(label).fill(value);
      await filter.getByRole('button', { name: 'Apply' }).click();
      await shown(page, 'entries', versions);
      await page.getByRole('button', { name: 'Show all entries' }).click();
      await until('all entries', async () => (await rows(page, 'entries').count()) === 25);
      expect(hash(page)).toBe('#account=alice');
    }
    await filter.getByLabel('Direction').selectOption('credit');
    await filter.getByLabel('From').fill('2020-02-03T04:05:06');
    await filter.getByLabel('Before').fill('2120-02-03T04:05:06');
    await filter.getByRole('button', { name: 'Apply' }).click();
    await shown(page, 'entries', ['1']);
    expect(new URLSearchParams(hash(page).slice(1)).get('from')).toMatch(/^2020-02-0[234]T\d\d:\d5:06\.000Z$/);
    expect(await filter.getByLabel('From').inputValue()).toBe('2020-02-03T04:05:06');
    await filter.getByLabel('Before').fill('2020-02-03T04:05:07');
    await filter.getByRole('button', { name: 'Apply' }).click();
    await page.locator('#entries-note', { hasText: 'No entry matches.' }).waitFor();
    await page.goBack();
    await shown(page, 'entries', ['1']);
    expect(await filter.getByLabel('Before').inputValue()).toBe('2120-02-03T04:05:06');
    await page.goto(`${url}/console#account=alice&type=nonsense`);
    await page.locator('#entries-problem', { hasText: 'must be one of' }).waitFor();
    await page.context().close();
  });

  it('shows active holds with their expiry, page by page, and the entries of one', async () => {
    const page = await pages.open('#account=alice', token);
    await until('a first page', async () => (await rows(page, 'holds').count()) === 20);
    expect(await rows(page, 'holds').first().innerText()).toMatch(/^ticket\s+25\s+0\s.*in 2 days\s+\d{4}-\d\d-\d\d /);
    expect(await rows(page, 'holds').nth(1).innerText()).toMatch(/never/);
    await page.getByRole('button', { name: 'More holds' }).click();
    await until('all of them', async () => (await rows(page, 'holds').count()) === 22);
    expect(await page.getByRole('button', { name: 'More holds' }).isVisible()).toBe(false);
    await page.locator('#holds a', { hasText: 'ticket' }).click();
    await shown(page, 'entries', ['3']);
    expect(hash(page)).toBe('#account=alice&holdId=ticket');
    expect(await page.locator('#filter-summary').innerText()).toBe('Filter: hold id ticket');
    await page.context().close();
  });

  it('creates an account, and says why it may not', async () => {
    const page = await pages.open('#accounts', token);
    await page.getByText('Create an account').click();
    const form = page.getByRole('form', { name: 'Create an account' });
    await form.getByLabel('Account id').fill('carol');
    await form.getByLabel('Asset').fill('POINTS');
    await form.getByLabel('Overdraft limit').fill('500');
    await form.getByLabel('Highest balance').fill('9000');
    await page.keyboard.press('Enter');
    await page.locator('#account-max', { hasText: 'highest balance 9,000' }).waitFor();
    expect(hash(page)).toBe('#account=carol');
    expect((await send(url, 'GET', '/v1/accounts/carol', undefined, key)).body).toMatchObject({
      asset: 'POINTS',
      overdraftLimit: 500,
      maxBalance: 9000,
    });
    await page.goto(`${url}/console#accounts`);
    await form.getByLabel('Asset').fill('USD/2');
    await form.getByRole('button', { name: 'Create' }).click();
    await page.locator('#create-problem', { hasText: 'Its asset is POINTS' }).waitFor();
    await page.context().close();
  });

  it('says what a key may not do, before it is tried', async () => {
    const client = await database.pool.connect();
    const bound = await createKey(client, { actor: 'tenant', scopes: ['read', 'write'], accountPrefix: 'p:' });
    client.release();
    const page = await pages.open('#accounts', bound.token);
    await page.locator('#accounts-list tr:first-child', { hasText: 'p:000' }).waitFor();
    await page.getByText('Create an account').click();
    await page.getByText('This takes a key with the scope admin. Yours has read and write.').waitFor();
    expect(await page.getByRole('button', { name: 'Create' }).isDisabled()).toBe(true);
    await page.goto(`${url}/console#try`);
    expect(await page.getByRole('button', { name: 'Post' }).isDisabled()).toBe(false);
    await page.getByRole('button', { name: 'API key' }).click();
    await page.locator('#caller', { hasText: 'the key of tenant' }).waitFor();
    expect(await page.locator('#caller').innerText()).toContain('of accounts that begin with p:.');
    const reader = await createApiKey(database, 'reader', ['read']);
    await page.getByLabel('Key', { exact: true }).fill(reader.token);
    await page.keyboard.press('Enter');
    await page.getByText('This takes a key with the scope write. Yours has read.').waitFor();
    expect(await page.getByRole('button', { name: 'Post' }).isDisabled()).toBe(true);
    await page.context().close();
  });

  it('fits a phone, and tables that go on to the side show it, and scroll with the keyboard', async () => {
    const page = await pages.open('', token, PHONE);
    for (const place of ['', '#accounts', '#account=alice&holdId=ticket', `#transfer=${transferId}`, '#try=alice']) {
      await page.goto(`${url}/console${place}`);
      await page.locator('main > section:not([hidden]) :is(tbody tr, form)').first().waitFor();
      const [content, screen] = (await page.evaluate('[document.documentElement.scrollWidth, innerWidth]')) as number[];
      expect(content, place).toBeLessThanOrEqual(screen as number);
    }
    await page.goto(`${url}/console#account=alice`);
    await rows(page, 'entries').first().waitFor();
    const area = page.locator('#entries-area');
    await area.scrollIntoViewIfNeeded();
    const edges = async () => {
      const { x, y, width } = (await area.boundingBox()) as { x: number; y: number; width: number };
      const at = async (left: number) =>
        (await page.screenshot({ clip: { x: left, y: y + 60, width: 6, height: 60 } })).toString('base64');
      return { left: await at(x + 2), right: await at(x + width - 8) };
    };
    const before = await edges();
    await area.focus();
    await page.keyboard.press('ArrowRight');
    await until('it has gone to the side', () => area.evaluate((it) => (it as unknown as Scrolled).scrollLeft > 0));
    await area.evaluate((it) => (it as unknown as Scrolled).scrollTo(9999, 0));
    await until('the shade is on the other side', async () => {
      const after = await edges();
      return after.left !== before.left && after.right !== before.right;
    });
    await page.context().close();
  });

  it.each(['light', 'dark'] as const)(
    'is read by anyone: contrast of 4.5 and more, a label for each field, %s',
    async (scheme) => {
      const page = await pages.open('', token, { colorScheme: scheme });
      await page.getByRole('button', { name: 'API key' }).click();
      expect(await page.evaluate(FAINT)).toEqual([]);
      await page.keyboard.press('Escape');
      for (const place of [
        '#live',
        '#accounts',
        '#account=alice',
        `#transfer=${transferId}`,
        '#try',
        '#account=nobody',
      ]) {
        await page.goto(`${url}/console${place}`);
        await page.locator('main > section:not([hidden]) :is(tbody tr, form, .problem:not(:empty))').first().waitFor();
        await page.evaluate(`for (const part of document.querySelectorAll('details')) part.open = true`);
        expect(await page.evaluate(FAINT), place).toEqual([]);
        expect(await page.evaluate(UNNAMED), place).toEqual([]);
      }
      await page.context().close();
    },
  );

  it('has a reference in the colours that the person prefers', async () => {
    const page = await browser.newPage({ colorScheme: 'dark' });
    await page.route('**/swagger-ui-bundle.js', (route) => route.abort()); // what it draws takes long, and its colours are here
    await page.goto(`${url}/docs`);
    const paper = `getComputedStyle(document.documentElement).backgroundColor`;
    expect(await page.evaluate(paper)).toMatch(/^rgb\((\d\d?), (\d\d?), (\d\d?)\)$/);
    await page.emulateMedia({ colorScheme: 'light' });
    await until('it follows', async () => (await page.evaluate(paper)) === 'rgba(0, 0, 0, 0)');
    await page.close();
  });

  it('is loaded again where a part of it was refused, and says so meanwhile', async () => {
    const page = await browser.newPage();
    let refused = 0;
    await page.route('**/console/files/holds.js', (route) => {
      refused += 1;
      return refused === 1 ? route.fulfill({ status: 503 }) : route.continue();
    });
    await page.goto(`${url}/console`);
    await page.locator('#stale', { hasText: 'It is loaded again in a moment.' }).waitFor();
    await page.locator('#link', { hasText: 'no API key' }).waitFor();
    await page.close();
  });

  it('reads again what a busy service refused', async () => {
    const page = await pages.open('', token);
    let refused = 0;
    await page.route('**/v1/accounts/alice', (route) => {
      refused += 1;
      return refused === 1 ? route.fulfill({ status: 503 }) : route.continue();
    });
    await page.goto(`${url}/console#account=alice`);
    await page.locator('#account-balance', { hasText: '8,930' }).waitFor();
    expect(refused).toBe(2);
    await page.context().close();
  });

  it('asks nobody else, and reports no error', () => {
    expect(pages.problems).toEqual([]);
  });
});

/** What the DOM has, whose types Node's program does not. */
interface Scrolled {
  scrollLeft: number;
  scrollTo(x: number, y: number): void;
}

/**
 * In the page: texts that are seen, with a contrast below 4.5.
 * https://www.w3.org/TR/WCAG22/#contrast-minimum
 */
const FAINT = `(() => {
  const partsOf = (colour) => {
    const size = colour.startsWith('color(') ? 255 : 1; // as color-mix() gives them, from 0 to 1
    return (colour.match(/[\\d.]+/g) ?? []).map((part, index) => Number(part) * (index < 3 ? size : 1));
  };
  const lightOf = (rgb) => {
    const [red, green, blue] = rgb.slice(0, 3).map((part) =>
      part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const parts = partsOf(getComputedStyle(at).backgroundColor);
      if (parts.length === 3 || parts[3] > 0) return parts;
    }
    return [255, 255, 255];
  };
  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const isSeen = element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
    if (!isSeen || texts.currentNode.data.trim() === '' || element.closest(':disabled, option, noscript')) continue;
    const lights = [partsOf(getComputedStyle(element).color), behind(element)].map(lightOf).sort((a, b) => b - a);
    const contrast = (lights[0] + 0.05) / (lights[1] + 0.05);
    if (contrast < 4.5) faint.push(texts.currentNode.data.trim() + ': ' + contrast.toFixed(2));
  }
  return faint;
})()`;

/** In the page: fields that are seen and have not one label. */
const UNNAMED = `[...document.querySelectorAll('input, select')]
  .filter((field) => field.checkVisibility() && field.labels.length !== 1).map(({ id }) => id)`;
