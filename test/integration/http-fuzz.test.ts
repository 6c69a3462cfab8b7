// Requests by chance. Whatever they are: an answer from the catalogue, never 500, never a hang, and
// no other change than those that the answer states. A failure prints the seed and the smallest
// request that shows it.
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { problems } from '../../src/shared/problems.ts';
import {
  type Answer,
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  startApiHere,
  verified,
} from '../support/harness.ts';
import { bytesOf, deliver, exchange, type Message, post, stateOf } from '../support/http-client.ts';

let database: Database;
let url: string;

beforeAll(async () => {
  database = await createDatabase();
  ({ url } = await startApiHere(database, createBroker(), { RELAY: 'off' }));
  await createAccount(url, 'alice', 100);
  await createAccount(url, 'bob');
});
afterAll(cleanUp);

const id = fc.constantFrom('alice', 'alice', 'alice', 'bob', 'new', 'a b', '', '..', '__proto__');
const numbers = fc.oneof(
  fc.integer({ min: -300, max: 300 }).map(String),
  fc.constantFrom('9007199254740991', '-9007199254740991', '9007199254740992', '1e3', '-0', '1.0', '"1"'),
  fc.maxSafeInteger().map(String),
);
const json = fc.json({ maxDepth: 4 });
const member = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.tuple(
      fc.constantFrom('accountId', 'id'),
      id.map((value) => JSON.stringify(value)),
    ),
  },
  { weight: 4, arbitrary: fc.tuple(fc.constantFrom('amount', 'overdraftLimit'), numbers) },
  {
    weight: 2,
    arbitrary: fc.tuple(
      fc.constant('reference'),
      fc.string({ unit: 'binary' }).map((s) => JSON.stringify(s)),
    ),
  },
  { weight: 1, arbitrary: fc.tuple(fc.constant('status'), fc.constantFrom('"open"', '"frozen"', 'null')) },
  { weight: 1, arbitrary: fc.tuple(fc.string(), json) },
);
const update = fc
  .tuple(id, numbers)
  .map(([accountId, amount]) => `{"accountId":${JSON.stringify(accountId)},"amount":${amount}}`);
const bulkMember = fc.oneof(
  { weight: 4, arbitrary: update },
  {
    weight: 4,
    arbitrary: fc
      .tuple(id, numbers, fc.constantFrom('"a"', '"b"', '"c"', '""', '1', 'null'))
      .map(
        ([accountId, amount, key]) =>
          `{"accountId":${JSON.stringify(accountId)},"amount":${amount},"idempotencyKey":${key}}`,
      ),
  },
  { weight: 1, arbitrary: json },
);
const wellFormed = fc
  .tuple(
    fc.constantFrom('alice', 'bob', 'new'),
    fc.integer({ min: -300, max: 300 }).filter((amount) => amount !== 0),
    fc.option(fc.constantFrom('a', 'b', 'c'), { nil: undefined }),
  )
  .map(([accountId, amount, idempotencyKey]) => JSON.stringify({ accountId, amount, idempotencyKey }));
const bulk = fc
  .oneof(
    { weight: 3, arbitrary: fc.array(wellFormed, { minLength: 1, maxLength: 20 }) },
    { weight: 1, arbitrary: fc.array(bulkMember, { maxLength: 6 }) },
    {
      weight: 1,
      arbitrary: fc.tuple(update, fc.integer({ min: 998, max: 1002 })).map(([one, count]) => Array(count).fill(one)),
    },
  )
  .map((updates) => `{"updates":[${updates.join(',')}]}`);
const body = fc.oneof(
  { weight: 4, arbitrary: update },
  { weight: 4, arbitrary: bulk },
  {
    weight: 4,
    arbitrary: fc
      .array(member, { maxLength: 5 })
      .map((members) => `{${members.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(',')}}`),
  },
  { weight: 2, arbitrary: json },
  { weight: 1, arbitrary: fc.string() },
  { weight: 2, arbitrary: fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)) },
);

// No line breaks: a header that ends the head early is the business of the second test.
const headerValue = fc.string({ unit: 'binary', maxLength: 300 }).map((value) => value.replace(/[\r\n]/g, ''));
const header = fc.oneof(
  fc.tuple(
    fc.constantFrom(
      'Idempotency-Key',
      'Traceparent',
      'Content-Encoding',
      'Expect',
      'Accept',
      'X-Y',
      'Trailer',
      'Upgrade',
    ),
    headerValue,
  ),
  fc.tuple(fc.constantFrom('Content-Type', 'Content-Length', 'Host', 'Traceparent', 'Authorization'), headerValue), // a second one
  fc.tuple(fc.constant('Idempotency-Key'), fc.constantFrom('a', '"a"', 'b', '"', '')),
);
const contentType = fc.oneof(
  { weight: 9, arbitrary: fc.constant('application/json') },
  { weight: 1, arbitrary: headerValue },
);
const segment = fc.oneof(
  fc.constantFrom('v1', 'accounts', 'balance-updates', 'bulk', 'entries', 'export', 'livez', '..', '%00', '%'),
  id,
);
const path = fc.oneof(
  { weight: 5, arbitrary: fc.constant('/v1/balance-updates') },
  { weight: 4, arbitrary: fc.constant('/v1/balance-updates/bulk') },
  { weight: 2, arbitrary: fc.constant('/v1/accounts') },
  { weight: 2, arbitrary: id.map((value) => `/v1/accounts/${encodeURIComponent(value)}`) },
  { weight: 1, arbitrary: fc.webPath() },
  { weight: 1, arbitrary: fc.array(segment).map((segments) => `/${segments.join('/')}`.replaceAll(' ', '')) },
);
const byChance: fc.Arbitrary<Message> = fc
  .record({
    method: fc.oneof(
      { weight: 6, arbitrary: fc.constant('POST') },
      { weight: 4, arbitrary: fc.constantFrom('GET', 'PATCH', 'PUT', 'DELETE', 'OPTIONS') },
    ),
    path,
    type: contentType,
    others: fc.array(header, { maxLength: 3 }),
    body,
  })
  .map(({ type, others, ...rest }) => ({ ...rest, headers: [['Content-Type', type], ...others] }));
const message = fc.oneof(
  { weight: 3, arbitrary: byChance },
  { weight: 1, arbitrary: bulk.map((body) => post('/v1/balance-updates/bulk', body)) },
  { weight: 1, arbitrary: update.map((body) => post('/v1/balance-updates', body, ['Idempotency-Key', 'd'])) },
);

const query = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .array(
        fc.tuple(
          fc.constantFrom(
            'limit',
            'cursor',
            'at',
            'version',
            'from',
            'to',
            'direction',
            'reference',
            'prefix',
            'format',
          ),
          fc.oneof(
            numbers,
            fc.constantFrom('credit', 'csv', 'jsonl', '', 'a', '%00', '%ff', '%', '[]'),
            fc
              .date({ noInvalidDate: false })
              .map((date) => (Number.isNaN(date.getTime()) ? 'NaN' : date.toISOString())),
            fc.string({ unit: 'binary' }).map((text) => encodeURIComponent(text.toWellFormed())),
          ),
        ),
        { maxLength: 3 },
      )
      .map((pairs) => pairs.map(([name, value]) => `${name}=${value}`).join('&')),
  },
  { weight: 1, arbitrary: fc.string().map((text) => encodeURI(text.toWellFormed())) },
);
const reading: fc.Arbitrary<Message> = fc
  .record({
    account: fc.oneof(fc.constant('alice'), id.map(encodeURIComponent)),
    of: fc.constantFrom('/balance', '/entries', '/entries/export', '/chain-head', '/verification', ''),
    query,
    format: fc.constantFrom('', '', 'format=csv&', 'format=jsonl&', 'version=1&', 'at=2026-01-01T00:00:00Z&'),
    isList: fc.nat(9).map((chance) => chance === 0),
  })
  .map(({ account, of, query, format, isList }) => ({
    path: isList ? `/v1/accounts?${query}` : `/v1/accounts/${account}${of}?${format}${query}`,
  }));

/** The changes of balances that answers state. */
function changesTold(answers: Answer[]): { accountId: string; amount: number }[] {
  return answers.flatMap(({ status, headers, body }) => {
    if (status >= 300) return [];
    if (body?.results) return body.results.filter((one: Result) => one.status === 200 && !one.replayed);
    return body?.eventId && !headers.get('idempotent-replayed') ? [body] : [];
  });
}
type Result = { status: number; replayed: boolean };

async function isSound(
  before: Awaited<ReturnType<typeof readState>>,
  answers: Answer[],
  method = 'POST',
): Promise<void> {
  for (const { status, headers, body } of answers) {
    if (status < 300) continue;
    if (status === 302) {
      expect(['GET', 'HEAD']).toContain(method);
      expect(headers.get('location')).toBe('console'); // of /
      continue;
    }
    expect(headers.get('content-type')).toBe('application/problem+json');
    expect(problems).toHaveProperty(body.code);
    expect(problems[body.code as keyof typeof problems].status).toBe(status);
    expect(body.code).not.toBe('internal');
  }
  const told = changesTold(answers);
  const after = await readState();
  expect(after.amounts - before.amounts).toBe(told.reduce((sum, { amount }) => sum + BigInt(amount), 0n));
  const mayOpenOrChange =
    method !== 'GET' && answers.some(({ status, body }) => status < 300 && 'overdraftLimit' in body);
  if (told.length === 0 && !mayOpenOrChange) expect(after.accounts).toBe(before.accounts);
  const isOpenedOrChanged = told.length === 0 && after.accounts !== before.accounts; // an entry of its own, without an amount
  expect(after.changes - before.changes).toBe(isOpenedOrChanged ? 1 : told.length);
  const codes = answers.flatMap(({ body }) => body?.results?.map((one: { code?: string }) => one.code) ?? [body?.code]);
  const isRemembered = codes.includes('insufficient_funds') || codes.includes('balance_out_of_range');
  if (told.length === 0 && !isRemembered) expect(after.requests).toBe(before.requests); // a decline is kept under its key
}

async function readState() {
  const [outbox] = (
    await database.pool.query('SELECT count(*)::int AS changes, coalesce(sum(amount), 0)::text AS amounts FROM outbox')
  ).rows;
  return {
    changes: outbox.changes as number,
    amounts: BigInt(outbox.amounts),
    accounts: await stateOf(database, ['account']),
    requests: await stateOf(database, ['idempotency_key']),
  };
}

it('answers any request from the catalogue, and changes nothing in silence', async () => {
  const seen = new Set<number>();
  await fc.assert(
    fc.asyncProperty(message, async (request) => {
      const before = await readState();
      const answer = await deliver(url, request);
      seen.add(answer.status);
      await isSound(before, [answer], request.method);
    }),
    { numRuns: 500 },
  );
  expect([...seen]).toEqual(expect.arrayContaining([200, 400, 404, 405, 415])); // else the chances are badly chosen
  expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
});

it('answers any reading, and changes nothing', async () => {
  const seen = new Set<number>();
  await fc.assert(
    fc.asyncProperty(reading, async (request) => {
      const before = await readState();
      const answer = await deliver(url, request);
      seen.add(answer.status);
      await isSound(before, [answer], 'GET');
    }),
    { numRuns: 500 },
  );
  expect([...seen].sort()).toEqual([200, 400, 404]);
});

it('answers a good request with one byte changed, added or removed, and rubbish after it', async () => {
  const good = bytesOf({
    method: 'POST',
    path: '/v1/balance-updates',
    headers: [
      ['Content-Type', 'application/json'],
      ['Connection', 'keep-alive'],
    ],
    body: '{"accountId":"alice","amount":-1}',
  });
  const damage = fc.record({ at: fc.nat(good.length), removed: fc.nat(1), added: fc.uint8Array({ maxLength: 1 }) });
  // Enough to complete any length that one more digit can announce, so that the server need not
  // wait for more.
  const rubbish = Buffer.alloc(20_000, 'x');
  await fc.assert(
    fc.asyncProperty(damage, async ({ at, removed, added }) => {
      const bytes = Buffer.concat([good.subarray(0, at), added, good.subarray(at + removed), rubbish]);
      const before = await readState();
      const answers = await exchange(url, bytes);
      expect(answers.length).toBeGreaterThan(0);
      await isSound(before, answers);
    }),
    { numRuns: 300 },
  );
  expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
});
