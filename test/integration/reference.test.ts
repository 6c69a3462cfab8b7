// The reference is true: both documents are valid, and what the API really answers is what they
// say, headers included. test/unit/calls.test.ts compares the calls in them with the table.
import { createRequire } from 'node:module';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv } from 'ajv';
import addFormats from 'ajv-formats';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type Answer,
  cleanUp,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  drained,
  type Received,
  send,
  startApiHere,
  startWorkerHere,
  subscribe,
  until,
} from '../support/harness.ts';
import { type Call, readDocument } from '../support/openapi/document.ts';

let database: Database;
let url: string;
let events: Received[];
// biome-ignore lint/suspicious/noExplicitAny: a document of any shape, which the validators judge
let openApi: any;
// biome-ignore lint/suspicious/noExplicitAny: the same
let asyncApi: any;
let document: ReturnType<typeof readDocument>;
let everything: Record<string, string>;
let reader: Record<string, string>;

beforeAll(async () => {
  database = await createDatabase();
  const broker = createBroker();
  ({ url } = await startApiHere(database, broker, { AUTH: 'required' }));
  await startWorkerHere(database, broker);
  events = await subscribe(broker);
  everything = (await createApiKey(database, 'shop')).headers;
  reader = (await createApiKey(database, 'reader', ['read'], 1000)).headers;
  openApi = (await send(url, 'GET', '/openapi.json')).body;
  asyncApi = (await send(url, 'GET', '/asyncapi.json')).body;
  document = readDocument(openApi);
});
afterAll(cleanUp);

const documented = (): [string, string, Call][] => document.calls.map((call) => [call.path, call.method, call]);

const callOf = (method: string, path: string) =>
  document.calls.find((call) => call.method === method && call.path === path) as Call;

/** An id that no transfer has. */
const NO_TRANSFER = 'alice:99:mwtowow0';

describe('the documents', () => {
  it('are valid, says the validator of OpenAPI and the schema of AsyncAPI', async () => {
    expect(await new Validator().validate(structuredClone(openApi))).toEqual({ valid: true });
    const require = createRequire(import.meta.url);
    const official = new Ajv({ strict: false, allErrors: true, validateFormats: false });
    const validate = official.compile(require('@asyncapi/specs/schemas/3.0.0-without-$id.json'));
    expect({ valid: validate(asyncApi), errors: validate.errors }).toEqual({ valid: true, errors: null });
  });

  it('and the page that shows them need no key, and nothing from elsewhere', async () => {
    const page = await fetch(`${url}/docs`);
    expect(page.status).toBe(200);
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
    const html = await page.text();
    const files = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, file]) => file as string);
    expect(files.length).toBeGreaterThan(4);
    for (const file of files) {
      expect(file).not.toMatch(/^(https?:)?\/\//);
      const answer = await fetch(new URL(file, `${url}/docs`));
      expect(answer.status, file).toBe(200);
      expect((await answer.arrayBuffer()).byteLength).toBeGreaterThan(10);
    }
    for (const path of ['/docs/package.json', '/docs/..%2fpackage.json', '/docs/constructor']) {
      expect((await send(url, 'GET', path)).body.code).toBe('not_found');
    }
  });
});

describe('the API answers as the document says', () => {
  const covered = new Map<string, Set<number>>();

  async function call(
    method: 'get' | 'post' | 'patch',
    template: string,
    options: {
      holdId?: string;
      path?: string;
      query?: string;
      body?: unknown;
      headers?: Record<string, string>;
      as?: object;
    } = {},
  ): Promise<Answer> {
    const id = options.path ?? (template.includes('/transfers/') ? NO_TRANSFER : 'alice');
    const path = template.replace('{id}', id).replace('{holdId}', options.holdId ?? 'h') + (options.query ?? '');
    const headers = { ...(options.as ?? everything), ...options.headers };
    const answer = await send(url, method.toUpperCase() as 'GET', path, options.body, headers);
    document.checkAnswer(callOf(method, template), answer);
    const operation = `${method} ${template}`;
    covered.set(operation, (covered.get(operation) ?? new Set()).add(answer.status));
    return answer;
  }

  it('to calls that succeed', async () => {
    const { status } = await call('post', '/v1/accounts', { body: { id: 'alice', overdraftLimit: 5 } });
    expect(status).toBe(201);
    expect((await call('post', '/v1/accounts', { body: { id: 'alice', overdraftLimit: 5 } })).status).toBe(200);
    const update = { accountId: 'alice', amount: 250, reference: 'order 1001' };
    const key = { 'idempotency-key': 'k1' };
    expect((await call('post', '/v1/balance-updates', { body: update, headers: key })).status).toBe(200);
    const again = await call('post', '/v1/balance-updates', { body: update, headers: key });
    expect(again.headers.get('idempotent-replayed')).toBe('true');
    const updates = [
      { accountId: 'alice', amount: -1 },
      { accountId: 'alice', amount: -999 },
      { accountId: 'nobody', amount: 1 },
      { ...update, idempotencyKey: 'k1', amount: 2 },
    ];
    const bulk = await call('post', '/v1/balance-updates/bulk', { body: { updates } });
    expect(bulk.body.results.map((one: { status: number }) => one.status)).toEqual([200, 400, 404, 422]);
    await drained(database);
    expect((await call('get', '/v1/accounts')).body.accounts).toHaveLength(1);
    await call('get', '/v1/accounts/{id}');
    await call('patch', '/v1/accounts/{id}', { body: { overdraftLimit: 6 } });
    const page = await call('get', '/v1/accounts/{id}/entries', { query: '?limit=1' });
    expect(page.body.nextCursor).toEqual(expect.any(String));
    await call('get', '/v1/accounts/{id}/balance', { query: '?version=1' });
    await call('get', '/v1/accounts/{id}/balance', { query: '?version=0' });
    await call('get', '/v1/accounts/{id}/chain-head');
    await call('get', '/v1/accounts/{id}/chain-segments', { query: '?limit=1' });
    await call('get', '/v1/accounts/{id}/verification');
    expect((await call('post', '/v1/accounts', { body: { id: 'bob' } })).status).toBe(201);
    const pair = { from: 'alice', to: 'bob', amount: 20 };
    const transfer = await call('post', '/v1/transfers', {
      body: { ...pair, reference: 'r', metadata: { order: '1' } },
    });
    await call('get', '/v1/transfers/{id}', { path: transfer.body.transferId });
    const transfers = [pair, { ...pair, amount: 9999 }];
    const many = await call('post', '/v1/transfers/bulk', { body: { transfers } });
    expect(many.body.results.map((one: { status: number }) => one.status)).toEqual([200, 400]);
    await call('post', '/v1/reversals', { body: { of: transfer.body.transferId, amount: 3 } });
    await call('post', '/v1/reversals', { body: { of: `alice:1:${transfer.body.transferId.split(':')[2]}` } });
    await call('post', '/v1/balance-updates', { body: update });
    const hold = { holdId: 'h', amount: 30, expiresInSeconds: 60 };
    expect((await call('post', '/v1/accounts/{id}/holds', { body: hold })).status).toBe(201);
    expect((await call('post', '/v1/accounts/{id}/holds', { body: hold })).status).toBe(200);
    await call('patch', '/v1/accounts/{id}/holds/{holdId}', { body: { amount: 40, expiresInSeconds: null } });
    await call('get', '/v1/accounts/{id}/holds/{holdId}');
    await call('get', '/v1/accounts/{id}/holds', { query: '?limit=1&status=active' });
    await call('post', '/v1/accounts/{id}/holds/{holdId}/release', { body: { amount: 5 } });
    await call('post', '/v1/accounts/{id}/holds/{holdId}/capture', { body: { amount: 5, final: false, to: 'bob' } });
    await call('post', '/v1/accounts/{id}/holds/{holdId}/capture', { body: {} });
    await drained(database);
    await call('get', '/v1/accounts/{id}/entries');
    for (const format of ['csv', 'jsonl']) {
      const response = await fetch(`${url}/v1/accounts/alice/entries/export?format=${format}`, { headers: everything });
      const { status: exported, headers } = response;
      const call = callOf('get', '/v1/accounts/{id}/entries/export');
      document.checkAnswer(call, { status: exported, headers, body: await response.text() });
      covered.set('get /v1/accounts/{id}/entries/export', new Set([200]));
    }
    const succeeded = [...covered]
      .filter(([, statuses]) => [...statuses].some((one) => one < 300))
      .map(([name]) => name);
    expect(succeeded.sort()).toEqual(
      documented()
        .map(([path, method]) => `${method} ${path}`)
        .sort(),
    );
  });

  it('to calls that are refused, whichever they are', async () => {
    const writer = await createApiKey(database, 'writer', ['write']);
    for (const [template, method] of documented()) {
      const body = method === 'get' ? undefined : {};
      const one = (options: object) => call(method as 'get', template, { body, ...options });
      expect((await one({ as: {} })).body.code, template).toBe('unauthorized');
      const needed = method === 'get' ? writer.headers : reader;
      expect((await one({ as: needed })).body.code).toBe('forbidden');
      if (method === 'get' && template.startsWith('/v1/accounts/{id}')) {
        const query = { balance: '?version=0', export: '?format=csv' }[template.split('/').at(-1) as string] ?? '';
        expect((await one({ path: 'nobody', query })).body.code).toBe('account_not_found');
        expect((await one({ path: 'a%20b', query })).body.code).toBe('invalid_request');
      }
      if (template.includes('{holdId}')) {
        const body = template.endsWith('{holdId}') ? { amount: 1 } : {};
        expect((await one(method === 'get' ? { holdId: 'none' } : { holdId: 'none', body })).body.code).toBe(
          'hold_not_found',
        );
      }
      if (method === 'get') continue;
      expect((await one({ body: '{' })).body.code).toBe('invalid_request');
      expect((await one({ body: '{}', headers: { 'content-type': 'text/plain' } })).body.code).toBe(
        'unsupported_media_type',
      );
      const large = `"${'x'.repeat(2_200_000)}"`;
      expect((await one({ body: large })).body.code).toBe('payload_too_large');
    }
    const refusal = async (method: 'post' | 'patch', template: string, body: object, headers = {}) =>
      (await call(method, template, { body, headers })).body.code;
    const update = (more: object, headers = {}) =>
      refusal('post', '/v1/balance-updates', { accountId: 'alice', amount: 1, ...more }, headers);
    expect(await update({ accountId: 'nobody' })).toBe('account_not_found');
    expect(await update({ amount: -9999 })).toBe('insufficient_funds');
    expect(await update({ amount: Number.MAX_SAFE_INTEGER })).toBe('balance_out_of_range');
    expect(await update({ amount: 7 }, { 'idempotency-key': 'k1' })).toBe('idempotency_key_reused');
    expect(await refusal('post', '/v1/accounts', { id: 'alice', overdraftLimit: 77 })).toBe('account_exists');
    await call('patch', '/v1/accounts/{id}', { body: { status: 'frozen' } });
    expect(await update({})).toBe('account_frozen');
    await call('patch', '/v1/accounts/{id}', { body: { status: 'open' } });
    await call('get', '/v1/transfers/{id}');
    expect(await refusal('post', '/v1/transfers', { from: 'alice', to: 'bob', amount: 9999 })).toBe(
      'insufficient_funds',
    );
    expect(await refusal('post', '/v1/reversals', { of: NO_TRANSFER })).toBe('change_not_found');
    expect(await refusal('post', '/v1/accounts/{id}/holds', { holdId: 'h', amount: 1 })).toBe('hold_exists');
    expect(await refusal('post', '/v1/accounts/{id}/holds/{holdId}/capture', {})).toBe('hold_closed');
    await call('post', '/v1/balance-updates', {
      body: { accountId: 'alice', amount: -(await call('get', '/v1/accounts/{id}')).body.balance - 6 },
    });
    expect(await refusal('patch', '/v1/accounts/{id}', { overdraftLimit: 0 })).toBe('overdraft_limit_too_low');
  });

  it('to a key over its limit', async () => {
    const { headers } = await createApiKey(database, 'limited', ['read'], 1);
    await until('it is over', async () => {
      const answer = await call('get', '/v1/accounts/{id}', { as: headers });
      return answer.status === 429;
    });
    // More than the limit in one request: no wait helps, so there is no Retry-After.
    const writer = await createApiKey(database, 'limited.writer', ['write'], 1);
    const updates = [1, 2].map((amount) => ({ accountId: 'alice', amount }));
    const bulk = await call('post', '/v1/balance-updates/bulk', { as: writer.headers, body: { updates } });
    expect([bulk.status, bulk.headers.get('retry-after')]).toEqual([429, null]);
  });
});

it('events on the broker are what the document says', async () => {
  const { headers } = await createApiKey(database, 'publisher');
  await send(url, 'POST', '/v1/accounts', { id: 'bob' }, headers);
  await send(url, 'POST', '/v1/balance-updates', { accountId: 'bob', amount: 5, reference: 'x' }, headers);
  const ofBob = () => events.filter(({ body }) => body.subject === 'bob');
  await until('its event has come', () => ofBob().length > 0);
  const validator = new Ajv({ strict: false, allErrors: true });
  addFormats.default(validator);
  const validate = validator.compile(asyncApi.components.schemas.BalanceEvent);
  for (const { body, routingKey } of ofBob()) {
    expect({ valid: validate(body), errors: validate.errors }).toEqual({ valid: true, errors: null });
    const addresses = Object.values(asyncApi.channels as Record<string, { address: string }>);
    expect(addresses.map(({ address }) => address)).toContain(routingKey);
  }
  for (const { examples, payload } of Object.values(asyncApi.components.messages) as {
    examples: { payload: object }[];
    payload: object;
  }[]) {
    const whole = validator.compile({ ...payload, components: asyncApi.components });
    for (const example of examples) expect(whole(example.payload), JSON.stringify(whole.errors)).toBe(true);
  }
});
