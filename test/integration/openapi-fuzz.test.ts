// Requests by chance, made from /openapi.json alone. Each answer is one that the document states
// for its call: status, headers and body, says a foreign validator. What is accepted the document
// allows; what the document allows is accepted, or refused for a reason that no schema can say. A
// failure prints the seed and the smallest request that shows it.
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  type Answer,
  cleanUp,
  createAccount,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  send,
  startApiHere,
  startWorkerHere,
  verified,
} from '../support/harness.ts';
import { type Asked, damaged, type Known, requestOf } from '../support/openapi/arbitrary.ts';
import { type Call, type OpenApi, readDocument } from '../support/openapi/document.ts';

const RUNS = 1500;
const WAIT_MS = 30_000;
/** Above all that is sent, so that the answers have it. */
const RATE_LIMIT = 1_000_000;

let database: Database;
let url: string;
let document: ReturnType<typeof readDocument>;
let writer: Record<string, string>;
let reader: Record<string, string>;

/** Of answers so far: ids that exist. Holds are those of alice. */
const made = { transferId: ['alice:99:mwtowow0'], eventId: ['alice:99:mwtowow0'], holdId: ['none'] };

beforeAll(async () => {
  database = await createDatabase();
  const broker = createBroker();
  ({ url } = await startApiHere(database, broker, { AUTH: 'required' }));
  await startWorkerHere(database, broker);
  writer = (await createApiKey(database, 'writer', undefined, RATE_LIMIT)).headers;
  reader = (await createApiKey(database, 'reader', ['read'])).headers;
  for (const id of ['alice', 'bob']) await createAccount(url, id, 10_000, writer);
  document = readDocument((await (await fetch(`${url}/openapi.json`)).json()) as OpenApi);
});
afterAll(cleanUp);

const account = fc.constantFrom('alice', 'alice', 'bob', 'carol');
const amount = fc.integer({ min: 1, max: 30 });
const few = fc.integer({ min: 1, max: 3 });
const signed = fc.oneof(
  amount,
  amount.map((value) => -value),
);
/** Looked up when it is sent. */
const latest = (kind: keyof typeof made) => fc.nat({ max: 5 }).map((back) => ({ kind, back }));
const known: Known = {
  ...{ accountId: account, from: account, to: account },
  ...{ transferId: latest('transferId'), of: fc.oneof(latest('transferId'), latest('eventId')) },
  overdraftLimit: fc.constant(0),
  maxBalance: fc.constant(null),
  status: fc.constantFrom(...Array(9).fill('open'), 'frozen'),
  asset: fc.constantFrom('UNIT', 'UNIT', 'USD/2'),
  reference: fc.constantFrom('r1', '\u{1f600}'.repeat(255)),
};
const ofEntries: Known = {
  id: account,
  transferId: latest('transferId'),
  holdId: latest('holdId'),
  reference: fc.constant('r1'),
};
/** What fits only where something else is left out. */
const NONE = fc.constant(undefined);
const ofMoney: Known = { ...known, legs: NONE, upTo: NONE, atomic: NONE, expectedVersion: NONE };
const ofHold: Known = {
  id: fc.constant('alice'),
  holdId: latest('holdId'),
  amount: few,
  final: fc.constant(false),
};
const pair: Known = { from: fc.constant('alice'), to: fc.constant('bob'), amount: few };
/** By call, where a name alone does not say what fits. */
const KNOWN_OF: Record<string, Known> = {
  updateBalance: { ...ofMoney, amount: signed },
  updateBalances: { ...ofMoney, amount: signed, 'Idempotency-Key': NONE },
  transfer: { ...ofMoney, ...pair },
  transfers: { ...ofMoney, ...pair },
  reverse: { ...known, amount: few },
  placeHold: {
    ...known,
    id: fc.constant('alice'),
    holdId: fc.nat().map((number) => `h${number}`),
    amount,
    expiresInSeconds: NONE,
  },
  captureHold: { ...ofHold, to: fc.constant('bob') },
  ...{ releaseHold: ofHold, changeHold: { ...ofHold, amount }, readHold: ofHold },
  createAccount: { ...known, id: account },
  readEntries: ofEntries,
  exportEntries: ofEntries,
  readTransfer: { id: latest('transferId') },
  listHolds: { id: account, status: fc.constantFrom('active', 'captured') },
  readPastBalance: { id: account, version: fc.nat({ max: 3 }) },
};

/** What a schema cannot say, as the answers word it. */
const BEYOND_A_SCHEMA = [
  ...['must not be 0', /^is for debits/, /^of an atomic request/, /^is for atomic requests/, /^needs (either|amount)/],
  ...[/^must be another account/, 'must name each account once', /^must add up to 0/, /^must move \d+ in all/],
  ...[
    /^must have at most \d+ legs in total/,
    'is in the future',
    /^is above the account's/,
    /^must be left out: a transfer of/,
  ],
  ...[
    /^must not hold U\+/,
    /^must be up to 16 texts by name/,
    'must not be named __proto__',
    'holds the name __proto__',
  ],
  // 16 digits, and above 2^53.
  'must be the nextCursor of the page before',
  ...[/^must be a transferId/, /^must be an eventId/, 'must be in the years 1 to 9999'],
];
const isBeyond = (what: string) =>
  BEYOND_A_SCHEMA.some((one) => (typeof one === 'string' ? one === what : one.test(what)));

/** With the ids that were asked for as latest of their kind. */
function filled<Value>(value: Value): Value {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(filled) as Value;
  const { kind, back } = value as unknown as { kind?: keyof typeof made; back?: number };
  if (kind !== undefined && back !== undefined) return made[kind].at(-1 - (back % made[kind].length)) as Value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, filled(one)])) as Value;
}

const present = (members: object) => Object.entries(members).filter(([, value]) => value !== undefined);

async function deliver({ method, path }: Call, asked: Asked, key: Record<string, string>): Promise<Answer> {
  const query = new URLSearchParams(
    present(asked.query).map(([name, value]): [string, string] => [name, String(value)]),
  );
  const target = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(String(asked.path[name])));
  const response = await fetch(`${url}${target}${query.size > 0 ? `?${query}` : ''}`, {
    method: method.toUpperCase(),
    headers: {
      ...(Object.fromEntries(present(asked.header)) as Record<string, string>),
      ...key,
      'content-type': 'application/json',
    },
    ...(asked.body !== undefined && { body: JSON.stringify(asked.body) }),
    signal: AbortSignal.timeout(WAIT_MS),
  });
  const text = await response.text();
  const isJson = /json$/.test(response.headers.get('content-type') ?? '');
  return { status: response.status, headers: response.headers, body: isJson && text ? JSON.parse(text) : text };
}

function note({ body }: Answer): void {
  for (const one of [body, ...(body?.results ?? [])]) {
    if (one?.eventId && !one.transferId) made.eventId.push(one.eventId);
    if (one?.transferId && !one.reverses) made.transferId.push(one.transferId);
    if (one?.holdId && one.accountId === 'alice') made.holdId.push(one.holdId);
  }
}

interface Sent {
  /** Of the call. */
  operationId: string;
  asked: Asked;
  isAllowed: boolean;
  who: 'writer' | 'reader' | 'nobody';
}

function sendings(): fc.Arbitrary<Sent> {
  const resolve = (schema: object) => document.found(schema as { $ref: string }) as object;
  const of = (call: Call) => {
    const { operationId } = call.operation;
    const allowed = requestOf(call, resolve, KNOWN_OF[operationId] ?? { ...known, amount, id: account });
    return fc.record({
      operationId: fc.constant(operationId),
      who: fc.constantFrom<Sent['who'][]>(...Array(18).fill('writer'), 'reader', 'nobody'),
      sent: fc.oneof(
        { weight: 3, arbitrary: allowed.map((asked) => ({ asked, isAllowed: true })) },
        { weight: 1, arbitrary: damaged(allowed).map((asked) => ({ asked, isAllowed: false })) },
      ),
    });
  };
  return fc.oneof(...document.calls.map(of)).map(({ operationId, who, sent }) => ({ operationId, who, ...sent }));
}

function check(call: Call, { asked, isAllowed }: Sent, answer: Answer): void {
  const { status, body } = answer;
  document.checkAnswer(call, answer);
  expect(status, JSON.stringify(body)).not.toBe(500);
  if (status < 300 && call.operation.requestBody) expect(document.mistakesOfBody(call, asked.body)).toBeNull();
  if (isAllowed && body?.code === 'invalid_request') {
    for (const { where, what } of body.errors ?? []) expect(isBeyond(what), `${where} ${what}`).toBe(true);
  }
}

it('answers as the document states, whatever the document allows to ask', async () => {
  const keys = { writer, reader, nobody: {} };
  const calls = new Map(document.calls.map((call) => [call.operation.operationId, call]));
  const seen = new Map([...calls.keys()].map((operationId) => [operationId, new Set<number>()]));
  await fc.assert(
    fc.asyncProperty(sendings(), async (sending) => {
      const sent = { ...sending, asked: filled(sending.asked) };
      const call = calls.get(sent.operationId) as Call;
      const answer = await deliver(call, sent.asked, keys[sent.who]);
      seen.get(sent.operationId)?.add(answer.status);
      note(answer);
      check(call, sent, answer);
    }),
    { numRuns: RUNS },
  );
  // Else the chances are badly chosen.
  for (const [operationId, statuses] of seen)
    expect(
      [...statuses].some((one) => one < 300),
      operationId,
    ).toBe(true);
  const all = new Set([...seen.values()].flatMap((statuses) => [...statuses]));
  expect([...all]).toEqual(expect.arrayContaining([200, 201, 400, 401, 403, 404, 409, 422]));
  expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
});

it('answers as the document states when it is overloaded', async () => {
  const crowded = await startApiHere(database, createBroker(), { LANES: '1', QUEUE_ROWS_MAX: '1', RELAY: 'off' });
  const call = document.calls.find(({ operation }) => operation.operationId === 'updateBalance') as Call;
  await createAccount(crowded.url, 'crowd', 1); // and its lane has a connection
  const body = { accountId: 'crowd', amount: 1 };
  const answers = await Promise.all(Array.from({ length: 200 }, () => send(crowded.url, 'POST', call.path, body)));
  for (const answer of answers) document.checkAnswer(call, answer);
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 503]));
  const overloaded = answers.find((answer) => answer.body.code === 'overloaded');
  expect(overloaded?.headers.get('retry-after')).toBe('1');
});
