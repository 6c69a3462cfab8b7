// Web pages of other origins, beside a service that takes requests without keys: a real browser on
// this machine runs one that looks for accounts in every way that needs no permission. It learns
// nothing, and changes nothing.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { calls } from '../../src/api/calls/table.ts';
import { ANSWER_HEADERS } from '../../src/shared/answer-headers.ts';
import { hasBrowser, openBrowser } from '../support/browser.ts';
import {
  type Broker,
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  onCleanUp,
  startApiHere,
  startWorkerHere,
} from '../support/harness.ts';
import { bytesOf, deliver, exchange, JSON_TYPE, type Message, post, stateOf } from '../support/http-client.ts';
import { needing } from '../support/needing.ts';

const UPDATES = '/v1/balance-updates';
/** Headers that differ from answer to answer, whatever was asked. */
const OF_THE_MOMENT: ReadonlySet<string> = new Set(['date', 'x-request-id']);

let database: Database;
let broker: Broker;
let url: string;

beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
  ({ url } = await startApiHere(database, broker, { RELAY: 'off' }));
  await createAccount(url, 'alice', 100);
});
afterAll(cleanUp);

/** As a browser sends it for a page of another origin. */
const asked = (path: string, headers: Record<string, string>): Message => ({ path, headers: Object.entries(headers) });

describe('without keys', () => {
  const subresource = { 'Sec-Fetch-Mode': 'no-cors', 'Sec-Fetch-Dest': 'image' };
  const embedded = { 'Sec-Fetch-Mode': 'navigate', 'Sec-Fetch-Dest': 'object' };
  const aWindow = { 'Sec-Fetch-Mode': 'navigate', 'Sec-Fetch-Dest': 'document' };

  it.each(['cross-site', 'same-site', 'same-origin, cross-site', ''])(
    'answers a page of another origin (Sec-Fetch-Site: %s) the same about every account, there or not',
    async (site) => {
      for (const how of [subresource, embedded, aWindow, {}]) {
        const answers = [];
        for (const id of ['alice', 'nobody', 'a%20b'])
          for (const rest of ['', '/balance?version=1', '/balance?version=9', '/entries', '/nothing']) {
            const path = `/v1/accounts/${id}${rest}`;
            const [{ status, body, headers } = {}] = await exchange(
              url,
              bytesOf(asked(path, { 'Sec-Fetch-Site': site, ...how })),
            );
            expect(status, path).toBe(403);
            answers.push({ body, headers: [...(headers as Headers)].filter(([name]) => !OF_THE_MOMENT.has(name)) });
          }
        expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
        expect(answers[0]?.body).toMatchObject({ code: 'cross_origin' });
      }
    },
  );

  it.each(['same-origin', 'none'])('answers its own pages and a person (Sec-Fetch-Site: %s)', async (site) => {
    expect((await deliver(url, asked('/v1/accounts/alice', { 'Sec-Fetch-Site': site }))).status).toBe(200);
  });

  it('believes Sec-Fetch-Site before Origin, as a proxy of a developer may change the host', async () => {
    const headers = { 'Sec-Fetch-Site': 'same-origin', Origin: 'http://localhost:5173', Host: 'localhost:3000' };
    expect((await deliver(url, asked('/v1/accounts/alice', headers))).status).toBe(200);
  });

  it('refuses by Origin where a browser sends no Sec-Fetch-Site', async () => {
    const before = await stateOf(database);
    const update = (origin: string) =>
      deliver(url, post(UPDATES, { accountId: 'alice', amount: 1 }, ['Host', 'localhost:3000'], ['Origin', origin]));
    for (const origin of ['http://evil.example', 'null', 'http://localhost:4000', 'http://localhost', ''])
      expect((await update(origin)).body, origin).toMatchObject({ code: 'cross_origin' });
    expect(await stateOf(database)).toBe(before);
    expect((await update('http://localhost:3000')).status).toBe(200);
    expect((await update('https://localhost:3000')).status).toBe(200); // something before it ends TLS
  });

  it('lets a link lead to its pages, and lets nothing be loaded from them', async () => {
    for (const path of ['/console', '/docs', '/openapi.json']) {
      expect((await deliver(url, asked(path, { 'Sec-Fetch-Site': 'cross-site', ...aWindow }))).status, path).toBe(200);
      for (const how of [subresource, embedded, {}])
        expect((await deliver(url, asked(path, { 'Sec-Fetch-Site': 'cross-site', ...how }))).status, path).toBe(403);
    }
    for (const path of ['/readyz', '/metrics', '/docs/swagger-ui.css', '/console/files/console.css'])
      expect((await deliver(url, asked(path, { 'Sec-Fetch-Site': 'same-site', ...subresource }))).status, path).toBe(
        403,
      );
  });
});

function expectAnswerHeaders(headers: Headers, where: string): void {
  for (const [name, value] of Object.entries(ANSWER_HEADERS)) {
    if (name !== 'content-security-policy') expect(headers.get(name), `${name} of ${where}`).toBe(value);
  }
  const policy = headers.get('content-security-policy') ?? '';
  for (const part of ["default-src 'none'", "frame-ancestors 'none'"]) expect(policy, where).toContain(part);
}

describe('every answer says that nobody may embed or keep it', () => {
  // test/integration/http-errors.test.ts claims the same of each refusal, and so of each status.
  it('of each path, whatever the method, with a key or without', async () => {
    const guarded = await startApiHere(database, broker, { RELAY: 'off', AUTH: 'required' });
    const paths = [
      ...new Set(calls.map(({ path }) => path.replace(/:\w+/g, 'alice'))),
      ...['/', '/nothing', '/%zz', 'http://[', '/livez', '/readyz', '/metrics', '/openapi.json', '/asyncapi.json'],
      ...['/docs', '/docs/swagger-ui.css', '/docs/nothing', '/console', '/console/files/console.js'],
      ...['/console/files/nothing', '/console/accounts/alice/balances', '/v1/accounts/alice/entries/export?format=csv'],
    ];
    for (const base of [url, guarded.url])
      for (const path of paths)
        for (const method of ['GET', 'HEAD', 'POST', 'DELETE', 'OPTIONS']) {
          const [answer] = await exchange(base, bytesOf({ method, path, headers: [JSON_TYPE] }));
          expectAnswerHeaders(answer?.headers as Headers, `${method} ${path}: ${answer?.status}`);
        }
    const stream = await fetch(`${url}/console/stream`);
    expectAnswerHeaders(stream.headers, 'the stream');
    await stream.body?.cancel();
  });

  it('of what never becomes a request', async () => {
    for (const bytes of ['rubbish\r\n\r\n', 'GET / HTTP/1.1\r\n\r\n', bytesOf({ headers: [['Expect', 'much']] })]) {
      const [answer] = await exchange(url, bytes, 'x x');
      expectAnswerHeaders(answer?.headers as Headers, String(bytes));
    }
  });

  it('of the worker', async () => {
    const worker = await startWorkerHere(database, broker, { HEALTH_HOST: '127.0.0.1', HEALTH_PORT: '0' });
    for (const path of ['/livez', '/readyz', '/metrics', '/nothing'])
      expectAnswerHeaders((await fetch(`http://127.0.0.1:${worker.healthPort}${path}`)).headers, path);
  });
});

needing('Chromium: apt-get install chromium, or name it in CHROMIUM', hasBrowser).describe(
  'a page in a browser',
  () => {
    let browser: Browser;
    let port: number;

    beforeAll(async () => {
      browser = await openBrowser();
      const script = await readFile(new URL('../support/outsider.js', import.meta.url));
      const html = '<!doctype html><title>elsewhere</title><body><script src="outsider.js"></script>';
      const elsewhere = createServer(({ url: path }, response) => {
        if (path === '/outsider.js') response.writeHead(200, { 'content-type': 'text/javascript' }).end(script);
        else response.writeHead(200, { 'content-type': 'text/html' }).end(html);
      });
      await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve));
      ({ port } = elsewhere.address() as AddressInfo);
      onCleanUp(async () => elsewhere.closeAllConnections());
      onCleanUp(() => new Promise((resolve) => elsewhere.close(resolve)));
    });
    afterAll(() => browser?.close());

    async function openPage(host = 'localhost'): Promise<Page> {
      const context = await browser.newContext();
      const page = await context.newPage();
      await page.goto(`http://${host}:${port}/`);
      return page;
    }

    async function findOut(host: string, path: string): Promise<Record<string, unknown>> {
      const page = await openPage(host);
      const seen = await page.evaluate(`lookAt('${url}${path}')`);
      await page.context().close();
      return seen as Record<string, unknown>;
    }

    it.each(['127.0.0.1', 'localhost', 'evil.localhost'])(
      'on another port of %s sees no difference between what is there and what is not',
      async (host) => {
        const there = await findOut(host, '/v1/accounts/alice/balance?version=1');
        expect(there['img {}']).toMatchObject({ event: 'error' }); // it did look
        expect(await findOut(host, '/v1/accounts/alice/balance?version=7')).toEqual(there);
        expect(await findOut(host, '/v1/accounts/alice')).toEqual(await findOut(host, '/v1/accounts/nobody'));
      },
    );

    it('changes nothing, by a form or a request that asks nobody first', async () => {
      const before = await stateOf(database);
      const page = await openPage();
      const answered = page.waitForResponse((response) => response.request().isNavigationRequest());
      await page.evaluate(`sendEverywhere('${url}${UPDATES}', '{"accountId":"alice","amount":1}')`);
      expect((await answered).status()).toBe(403);
      await page.context().close();
      expect(await stateOf(database)).toBe(before);
    });

    it('opens the console by a link, and has no hold of its window', async () => {
      const page = await openPage();
      const popup = page.context().waitForEvent('page');
      await page.evaluate(`void (globalThis.opened = window.open('${url}/console'))`);
      await (await popup).locator('#link', { hasText: /connected/ }).waitFor();
      expect(await page.evaluate('opened.closed')).toBe(true);
      await page.context().close();
    });
  },
);
