// The examples of the OpenAPI document work when they are sent as they are, in the order in which
// the page shows them, and again: each time with a new idempotency key, about the hold and the
// transfer that were made before.
import { randomUUID } from 'node:crypto';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createExamples } from '../../src/api/reference/examples.js';
import { hasBrowser, openBrowser } from '../support/browser.ts';
import {
  type Answer,
  cleanUp,
  createBroker,
  createDatabase,
  drained,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { needing } from '../support/needing.ts';
import { type Call, type OpenApi, readDocument } from '../support/openapi/document.ts';

let url: string;
let document: ReturnType<typeof readDocument>;
let tags: OpenApi['tags'];
let drain: () => Promise<unknown>;

beforeAll(async () => {
  const database = await createDatabase();
  const broker = createBroker();
  ({ url } = await startApiHere(database, broker));
  await startWorkerHere(database, broker);
  const openApi = (await (await fetch(`${url}/openapi.json`)).json()) as OpenApi;
  document = readDocument(openApi);
  tags = openApi.tags;
  drain = () => drained(database);
});
afterAll(cleanUp);

/** As the page shows them: by tag. */
const operations = (): Call[] =>
  tags.flatMap(({ name }) => document.calls.filter(({ operation }) => operation.tags[0] === name));

/**
 * What the page sends: the examples of parameters, their defaults where there are none, and one
 * body.
 */
function requestOf({ method, path, operation, parameters }: Call, body: object | undefined) {
  const headers: Record<string, string> = body ? { 'Content-Type': 'application/json' } : {};
  const query = new URLSearchParams();
  let filled = path;
  for (const { in: where, name, required, schema } of parameters) {
    const value = schema.example ?? schema.default;
    if (required) expect(value, `${operation.operationId} ${name}`).toBeDefined();
    if (value === undefined) continue;
    if (where === 'path') filled = filled.replace(`{${name}}`, encodeURIComponent(String(value)));
    else if (where === 'query') query.set(name, String(value));
    else headers[name] = String(value);
  }
  const target = `${url}${filled}${query.size > 0 ? `?${query}` : ''}`;
  return { method: method.toUpperCase(), url: target, headers, body: body && JSON.stringify(body, null, 2) };
}

it('succeed, each time as something new', async () => {
  const { request, response } = createExamples(randomUUID);
  const succeeded = new Set<string>();
  for (let round = 0; round < 3; round += 1) {
    for (const one of operations()) {
      const { operationId, requestBody } = one.operation;
      const bodies = Object.values(requestBody?.content['application/json'].examples ?? { none: { value: undefined } });
      for (const { value } of bodies) {
        const { url: target, ...rest } = request(requestOf(one, value));
        const answer = await fetch(target, rest as RequestInit);
        const text = await answer.text();
        const isJson = answer.headers.get('content-type') === 'application/json';
        const { status, body } = response({ status: answer.status, body: isJson ? JSON.parse(text) : undefined });
        expect(status, `${operationId} ${text}`).toBeLessThan(300);
        expect(answer.headers.has('idempotent-replayed'), operationId).toBe(false);
        for (const result of (body as Answer['body'])?.results ?? []) {
          expect(result, operationId).toMatchObject({ status: 200, replayed: false });
        }
        succeeded.add(operationId);
      }
      if (one.operation.tags[0] === 'Holds') await drain();
    }
  }
  expect(succeeded.size).toBe(operations().length);
});

it('are left alone where a person wrote something else', () => {
  const { request } = createExamples(() => 'new');
  const sent = {
    url: 'http://h/v1/accounts/bob/holds/mine',
    headers: { 'Idempotency-Key': 'mine' },
    body: '{"holdId": "mine"}',
  };
  expect(request(structuredClone(sent))).toEqual(sent);
  const example = {
    url: 'http://h/v1/balance-updates/bulk',
    body: '{"amount": 9007199254740993, "idempotencyKey" : "order-1001"}',
  };
  expect(request(structuredClone(example)).body).toBe('{"amount": 9007199254740993, "idempotencyKey" : "new"}');
});

needing('Chromium: apt-get install chromium, or name it in CHROMIUM', hasBrowser).describe(
  'on the page, in a browser',
  () => {
    let browser: Browser;
    let page: Page;
    beforeAll(async () => {
      browser = await openBrowser();
      page = await browser.newPage();
      // On a busy machine a file of the page may be refused as overloaded.
      await until('the page is whole', async () => {
        await page.goto(`${url}/docs`);
        const shown = page.locator('[id$="-createAccount"]').waitFor({ timeout: 10_000 });
        return shown.then(
          () => true,
          () => false,
        );
      });
    });
    afterAll(() => browser?.close());

    /** Clicks Execute, after what is needed to get there. @returns the status shown, and what was sent. */
    async function execute(operationId: string): Promise<{ status: string; key: string | undefined }> {
      const block = page.locator(`[id$="-${operationId}"]`);
      if ((await block.locator('.execute').count()) === 0) {
        await block.locator('.opblock-summary-control').click();
        await block.locator('.try-out__btn').click();
      }
      const sent = page.waitForRequest((one) => one.url().includes('/v1/'));
      await block.locator('.execute').click();
      const key = (await sent).headers()['idempotency-key'];
      const shown = block.locator('.live-responses-table .response .response-col_status').first();
      await shown.waitFor();
      return { status: (await shown.innerText()).trim(), key };
    }

    it('a click sends a new key each time, and succeeds', async () => {
      expect((await execute('createAccount')).status).toMatch(/^20[01]/);
      const first = await execute('updateBalance');
      const second = await execute('updateBalance');
      expect([first.status, second.status]).toEqual(['200', '200']);
      expect(first.key).toMatch(/^[0-9a-f]{24}$/);
      expect(second.key).toMatch(/^[0-9a-f]{24}$/);
      expect(second.key).not.toBe(first.key);
      expect(await page.locator('.curl-command').last().innerText()).toContain(second.key);
    });
  },
);
