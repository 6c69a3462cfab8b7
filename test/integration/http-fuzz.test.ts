// Requests by chance. Whatever they are: an answer from the catalogue, never 500, never a hang, and never a change
// that no 200 or 201 told of. A failure prints the seed and the smallest request that shows it.
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
} from '../harness.ts';
import { bytesOf, deliver, exchange, type Message, stateOf } from '../http-client.ts';

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
const body = fc.oneof(
  { weight: 4, arbitrary: update },
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
    fc.constantFrom('Idempotency-Key', 'Traceparent', 'Content-Encoding', 'Expect', 'Accept', 'X-Y'),
    headerValue,
  ),
  fc.tuple(fc.constant('Idempotency-Key'), fc.constantFrom('a', '"a"', 'b', '"', '')),
);
const contentType = fc.oneof(
  { weight: 9, arbitrary: fc.constant('application/json') },
  { weight: 1, arbitrary: headerValue },
);
const segment = fc.oneof(
  fc.constantFrom('v1', 'accounts', 'balance-updates', 'entries', 'livez', '..', '%00', '%'),
  id,
);
const path = fc.oneof(
  { weight: 5, arbitrary: fc.constant('/v1/balance-updates') },
  { weight: 2, arbitrary: fc.constant('/v1/accounts') },
  { weight: 2, arbitrary: id.map((value) => `/v1/accounts/${encodeURIComponent(value)}`) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(id, fc.string())
      .map(([value, query]) => `/v1/accounts/${value}/entries?${encodeURI(query.toWellFormed())}`),
  },
  { weight: 1, arbitrary: fc.webPath() },
  { weight: 1, arbitrary: fc.array(segment).map((segments) => `/${segments.join('/')}`.replaceAll(' ', '')) },
);
const message: fc.Arbitrary<Message> = fc
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

async function isSound(before: Awaited<ReturnType<typeof readState>>, answers: Answer[]): Promise<void> {
  for (const { status, headers, body } of answers) {
    if (status < 300) continue;
    expect(headers.get('content-type')).toBe('application/problem+json');
    expect(problems).toHaveProperty(body.code);
    expect(problems[body.code as keyof typeof problems].status).toBe(status);
    expect(body.code).not.toBe('internal');
  }
  const told = answers.map(({ status, body }) => (status < 300 ? 'a change' : body.code));
  if (told.includes('a change')) return;
  const isRemembered = told.includes('insufficient_funds') || told.includes('balance_out_of_range');
  const after = await readState();
  expect(after.balances).toBe(before.balances);
  if (!isRemembered) expect(after.requests).toBe(before.requests); // a decline is kept under its key
}

async function readState() {
  return { balances: await stateOf(database, ['account', 'outbox']), requests: await stateOf(database, ['request']) };
}

it('answers any request from the catalogue, and changes nothing in silence', async () => {
  const seen = new Set<number>();
  await fc.assert(
    fc.asyncProperty(message, async (request) => {
      const before = await readState();
      const answer = await deliver(url, request);
      seen.add(answer.status);
      await isSound(before, [answer]);
    }),
    { numRuns: 500 },
  );
  expect([...seen]).toEqual(expect.arrayContaining([200, 400, 404, 405, 415])); // else the chances are badly chosen
  expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
});

it('answers a good request with one byte changed, added or removed, and rubbish behind it', async () => {
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
  // Enough to complete any length that one more digit can announce, so that the server need not wait for more.
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
