// The hash chains: what the worker writes is what anybody computes from the entries that the API
// shows, whatever order the entries came in, and whoever wrote them.
import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { CHANGE_COLUMNS, changeBody, changeOf, metadataText } from '../../src/shared/change.ts';
import { CHANGE_TYPES } from '../../src/shared/contract.ts';
import { createPool } from '../../src/shared/database.ts';
import { createLogger } from '../../src/shared/logging.ts';
import { type Chainer, type ChainerOptions, startChainer } from '../../src/worker/chainer.ts';
import {
  entryText,
  GENESIS,
  type HashedEntry,
  recomputeHead,
  type Segment,
  segmentHash,
  segmentText,
} from '../support/chain-model.ts';
import {
  type Broker,
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  environmentOf,
  insertAccounts,
  onCleanUp,
  send,
  spawnProcess,
  startApiHere,
  startWorkerHere,
  until,
  verified,
} from '../support/harness.ts';
import { changeRow, fillLedger, insertAccountRows, insertEntries, LEDGER_EPOCH } from '../support/ledger-rows.ts';

let database: Database;
let broker: Broker;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
});
afterEach(cleanUp);

/** One with connections of its own, which are gone when it has stopped. */
function chainerHere(limits: ChainerOptions['limits'] = {}): Chainer {
  const pool = createPool(database.url, 'test chainer', 1, 10_000);
  const chainer = startChainer({ pool, log: createLogger('test', 'silent'), limits: { pauseMs: 1, ...limits } });
  let stopped: Promise<void> | undefined;
  const stop = () => {
    stopped ??= chainer.stop().then(() => pool.end());
    return stopped;
  };
  onCleanUp(stop);
  return { ...chainer, stop };
}

/** Entries with these versions, each +1, without their way through outbox and broker. */
const record = (accountId: string, versions: number[]) =>
  insertEntries(
    database.pool,
    versions.map((version) => changeRow(accountId, version)),
  );

const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, index) => first + index);

/** What the API shows of the entries that {@link record} and fillLedger make. */
const recorded = (first: number, last: number): HashedEntry[] =>
  range(first, last).map((version) => ({
    version,
    epoch: LEDGER_EPOCH,
    ...(version === 0 ? { limits: { overdraftLimit: 0, status: 'open' } } : { previousEpoch: LEDGER_EPOCH }),
    type: version === 0 ? 'account.opened' : 'balance.credited',
    asset: 'UNIT',
    amount: version === 0 ? 0 : 1,
    heldChange: 0,
    balance: version,
    held: 0,
    createdAt: '2026-11-23T20:00:00.000Z',
  }));

async function storedSegments(accountId: string): Promise<Segment[]> {
  const { rows } = await database.pool.query<Segment>(
    `SELECT first_version AS "firstVersion", last_version AS "lastVersion", encode(hash, 'hex') AS hash
     FROM ledger_chain WHERE account_id = $1 ORDER BY last_version`,
    [accountId],
  );
  return rows;
}

const bounds = async (accountId: string) =>
  (await storedSegments(accountId)).map(({ firstVersion, lastVersion }) => [firstVersion, lastVersion]);

const chainedTo = async (accountId: string) => (await storedSegments(accountId)).at(-1)?.lastVersion ?? null;

/**
 * The segments of recorded entries cover 0 to `last` without gap or overlap, none is too long, and
 * each hash is right.
 */
async function expectChained(accountId: string, last: number): Promise<void> {
  const segments = await storedSegments(accountId);
  expect(segments.at(-1)?.lastVersion).toBe(last);
  const entries = recorded(0, last);
  for (const [index, { hash }] of segments.entries()) {
    expect(hash).toBe(
      recomputeHead(
        accountId,
        entries.slice(segments[index]?.firstVersion),
        segments.slice(index, index + 1),
        segments[index - 1]?.hash,
      ),
    );
  }
  expect(recomputeHead(accountId, entries, segments)).toBe(segments.at(-1)?.hash);
}

/** Entries that are in a segment. */
const hashed = async () =>
  (
    await database.pool.query(
      'SELECT coalesce(sum(last_version - first_version + 1), 0)::bigint AS count FROM ledger_chain',
    )
  ).rows[0].count;

const extend = async (accountIds: string[], entriesMax: number): Promise<{ hashed: number; unfinished: string[] }> =>
  (await database.pool.query('SELECT hashed, unfinished FROM extend_ledger_chain($1, $2)', [accountIds, entriesMax]))
    .rows[0];

/** All pages of a list, in the order of the pages. */
async function readPages<T>(url: string, path: string, list: string, limit: number): Promise<T[]> {
  const all: T[] = [];
  let cursor: string | null = null;
  do {
    const page = await send(url, 'GET', `${path}?limit=${limit}${cursor ? `&cursor=${cursor}` : ''}`);
    all.push(...page.body[list]);
    cursor = page.body.nextCursor;
  } while (cursor);
  return all;
}

/** The entries of an account as the API shows them, oldest first. */
const readEntries = async (url: string, accountId: string, limit = 1000) =>
  (await readPages<HashedEntry>(url, `/v1/accounts/${accountId}/entries`, 'entries', limit)).reverse();

const readSegments = (url: string, accountId: string, limit = 1000) =>
  readPages<Segment>(url, `/v1/accounts/${accountId}/chain-segments`, 'segments', limit);

it('gives a head and segments over the API that a client computes from the entries', async () => {
  const { url } = await startApiHere(database, broker, { RELAY: 'off' });
  await createAccount(url, 'alice');
  const head = async () => (await send(url, 'GET', '/v1/accounts/alice/chain-head')).body;
  expect(await head()).toEqual({ accountId: 'alice', version: null, epoch: null, hash: GENESIS });
  expect((await send(url, 'GET', '/v1/accounts/alice/chain-segments')).body).toEqual({
    accountId: 'alice',
    segments: [],
    nextCursor: null,
  });
  const worker = await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  const references = ['order 1', undefined, '"quoted" \\ / <b>', 'Grüße 漢字 🎉', '{"version":1}', '],["'];
  for (const reference of references) {
    const update = { accountId: 'alice', amount: 250, ...(reference && { reference }) };
    expect((await send(worker.url, 'POST', '/v1/balance-updates', update)).status).toBe(200);
  }
  expect((await send(url, 'PATCH', '/v1/accounts/alice', { overdraftLimit: 5, maxBalance: 9000 })).status).toBe(200);
  const last = references.length + 1;
  await until('all are chained', async () => (await head()).version === last);
  const entries = await readEntries(url, 'alice', 4);
  const segments = await readSegments(url, 'alice', 2);
  expect(segments).toEqual(await storedSegments('alice'));
  const { epoch } = entries.at(-1) as (typeof entries)[number];
  const hash = recomputeHead('alice', entries, segments);
  expect(await head()).toEqual({ accountId: 'alice', version: last, epoch, hash });
  // From a head that was kept, the entries and segments after it are enough.
  const [kept, ...later] = segments;
  const after = entries.slice((kept?.lastVersion ?? 0) + 1);
  expect(recomputeHead('alice', after, later, kept?.hash)).toBe(segments.at(-1)?.hash);
  for (const call of ['chain-head', 'chain-segments']) {
    expect((await send(url, 'GET', `/v1/accounts/nobody/${call}`)).body.code).toBe('account_not_found');
  }
});

it.each(['limit=0', 'limit=1001', 'cursor=-1', 'cursor=x', 'order=asc'])(
  'refuses a list of segments with %s',
  async (query) => {
    const { url } = await startApiHere(database, broker, { RELAY: 'off' });
    await createAccount(url, 'alice');
    const answer = await send(url, 'GET', `/v1/accounts/alice/chain-segments?${query}`);
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
  },
);

const anyText = fc.string({ unit: 'binary', minLength: 1, maxLength: 20 }).filter((value) => !value.includes('\0'));
const optionalText = fc.option(anyText);
const moment = fc.date({ min: new Date('1000-01-01'), max: new Date('9999-12-31T23:59:59.999Z'), noInvalidDate: true });
const metadata = fc
  .dictionary(
    fc.stringMatching(/^[a-z0-9_.-]{1,8}$/).filter((name) => name !== '__proto__'),
    fc.oneof(anyText, fc.constant('')),
    {
      maxKeys: 4,
      noNullPrototype: true,
    },
  )
  .map(metadataText);
const hold = fc.record({
  holdId: anyText,
  holdStatus: fc.constantFrom('active' as const, 'captured' as const, 'released' as const, 'expired' as const),
  holdRemaining: fc.maxSafeNat(),
  holdExpiresAt: fc.option(moment),
});
const limits = fc.record({
  overdraftLimit: fc.maxSafeNat(),
  maxBalance: fc.option(fc.maxSafeNat()),
  status: fc.constantFrom('open' as const, 'frozen' as const, 'closed' as const),
});
const entry = fc
  .record({
    epoch: fc.maxSafeNat(),
    previousEpoch: fc.maxSafeNat(),
    type: fc.constantFrom(...CHANGE_TYPES.slice(1)),
    asset: anyText,
    amount: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    heldChange: fc.maxSafeInteger(),
    balance: fc.maxSafeInteger(),
    held: fc.maxSafeNat(),
    createdAt: moment,
    reference: fc.oneof(optionalText, fc.constant('')),
    actor: fc.oneof(optionalText, fc.constant('')),
    metadata: fc.option(metadata),
    transferId: optionalText,
    reverses: optionalText,
    hold: fc.option(hold),
    limits: fc.option(limits),
  })
  .map(({ hold, limits, ...members }) => {
    const sign = members.type === 'balance.credited' ? 1 : members.type === 'balance.debited' ? -1 : 0;
    return { ...members, ...hold, ...limits, amount: sign * members.amount + 0 };
  });

it('hashes whatever can be in an entry as its description says', async () => {
  const { url } = await startApiHere(database, broker, { RELAY: 'off' });
  const histories = fc.array(fc.array(entry, { minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 5 });
  let run = 0;
  await fc.assert(
    fc.asyncProperty(histories, fc.integer({ min: 1, max: 30 }), async (accounts, entriesMax) => {
      run += 1;
      const ids = accounts.map((_, index) => `run-${run}-${index}`);
      await insertAccounts(database, ...ids);
      const rows = accounts.flatMap((entries, index) =>
        entries.map((members, version) => {
          const opening = version === 0 ? { type: 'account.opened' as const, amount: 0, previousEpoch: null } : {};
          return changeRow(ids[index] as string, version, { ...members, ...opening });
        }),
      );
      await insertEntries(database.pool, rows);
      for (let waiting = ids; waiting.length > 0; ) {
        const found = await extend(waiting, entriesMax);
        expect(found.hashed).toBeGreaterThan(0);
        expect(found.hashed).toBeLessThanOrEqual(entriesMax);
        waiting = found.unfinished;
      }
      for (const id of ids) {
        const { body } = await send(url, 'GET', `/v1/accounts/${id}/chain-head`);
        const entries = await readEntries(url, id);
        expect(body.version).toBe(entries.length - 1);
        expect(body.hash).toBe(recomputeHead(id, entries, await readSegments(url, id)));
      }
    }),
    { numRuns: 40 },
  );
});

/** Fragments of the form that is hashed, to make texts that might pass for something else. */
const FRAGMENTS = [
  '"',
  '\\',
  '],[',
  ',',
  'null',
  '}',
  '{',
  '"metadata":',
  '"reverses":"x"',
  '1',
  ':',
  '\u0001',
  '\\u0001',
  'é',
];
const crafted = fc.array(fc.constantFrom(...FRAGMENTS), { maxLength: 4 }).map((parts) => parts.join(''));
const craftedText = fc.option(
  fc.oneof(crafted, fc.constantFrom('open', 'active', '{"a":"b"}', '{"a":"b"},"reverses":"x"')),
);
const craftedNumber = fc.option(fc.constantFrom(0, 1, 11, -1));
const craftedTime = fc.option(
  fc.constantFrom(
    ...[
      '2026-11-23T00:00:00Z',
      '2026-11-23T00:00:00.001Z',
      '2026-11-23 BC',
      '0001-01-01',
      '0001-01-01 BC',
      '12026-11-23',
    ],
    ...['infinity', '-infinity', '9999-12-31T23:59:59.999Z', '10000-01-01T00:00:00Z'],
  ),
);
const craftedRow = fc.record({
  version: fc.constantFrom(1, 2, 11),
  epoch: fc.constantFrom(1, 2, 11),
  previous_epoch: craftedNumber,
  amount: fc.constantFrom(0, 1, 11),
  held_change: fc.constantFrom(0, 1, -1),
  balance: fc.constantFrom(0, 1, 11),
  held: fc.constantFrom(0, 1, 11),
  created_at: craftedTime.map((time) => time ?? '2026-11-23T00:00:00Z'),
  type: crafted,
  asset: crafted,
  reference: craftedText,
  actor: craftedText,
  metadata: craftedText,
  transfer_id: craftedText,
  reverses: craftedText,
  hold_id: craftedText,
  hold_status: craftedText,
  hold_remaining: craftedNumber,
  hold_expires_at: craftedTime,
  overdraft_limit: craftedNumber,
  max_balance: craftedNumber,
  status: craftedText,
});
type CraftedRow = typeof craftedRow extends fc.Arbitrary<infer T> ? T : never;

/** The distinct rows among these, and their texts. */
async function textsOf(rows: Partial<CraftedRow>[]): Promise<string[]> {
  const { rows: found } = await database.pool.query<{ text: string }>(
    `SELECT ledger_entry_text(entry) AS text
     FROM (SELECT DISTINCT (jsonb_populate_record(NULL::ledger, row)).* FROM jsonb_array_elements($1::jsonb) AS row) AS entry`,
    [JSON.stringify(rows)],
  );
  return found.map(({ text }) => text);
}

it('hashes entries that differ in any way to different texts, each of which is JSON of its own', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(craftedRow, { minLength: 50, maxLength: 300, size: 'max' }), async (rows) => {
      // Neighbours of each row, too: one column moved into another, or taken from another row.
      const columns = Object.keys(rows[0] as CraftedRow) as (keyof CraftedRow)[];
      const neighbours = rows.map((row, index) => {
        const column = columns[index % columns.length] as keyof CraftedRow;
        return { ...row, [column]: rows[(index + 1) % rows.length]?.[column] };
      });
      const all = [...rows, ...neighbours];
      const texts = await textsOf(all);
      expect(new Set(texts).size).toBe(texts.length);
      // So one text can neither be a part of another nor reach into the next one.
      for (const text of texts) expect(() => JSON.parse(`[${text}]`), text).not.toThrow();
    }),
    { numRuns: 20 },
  );
});

it('hashes each column of an entry', async () => {
  const base = {
    version: 5,
    epoch: 7,
    previous_epoch: 7,
    amount: 0,
    held_change: 0,
    balance: 0,
    held: 0,
    type: 'x',
    asset: 'x',
  };
  const { rows: columns } = await database.pool.query<{ name: string; type: string }>(
    `SELECT attname AS name, format_type(atttypid, NULL) AS type FROM pg_attribute
     WHERE attrelid = 'ledger'::regclass AND attnum > 0 AND attname NOT IN ('account_id', 'recorded_at')`,
  );
  expect(columns.length).toBe(CHANGE_COLUMNS.length - 1); // the account is hashed once for each segment
  const values = { bigint: 4711, text: 'other', 'timestamp with time zone': '2026-11-24T00:00:00Z' };
  const changed = columns.map(({ name, type }) => ({
    ...base,
    created_at: '2026-11-23T00:00:00Z',
    [name]: values[type as keyof typeof values],
  }));
  expect(new Set(await textsOf([{ ...base, created_at: '2026-11-23T00:00:00Z' }, ...changed] as never)).size).toBe(
    columns.length + 1,
  );
});

it('does what docs/ledger-chain.md shows, byte for byte', async () => {
  const docs = await readFile(new URL('../../docs/ledger-chain.md', import.meta.url), 'utf8');
  const blocks = (language: string) =>
    [...docs.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, 'gms'))].map(([, block]) => block as string);
  const [text = ''] = blocks('json').map((block) => block.trim());
  const [accountId, ...rows] = JSON.parse(text);
  const entries: HashedEntry[] = rows.map((row: unknown[]) => {
    const names =
      'version epoch previousEpoch type asset amount heldChange balance held createdAt reference actor'.split(' ');
    const { metadata, ...rest } = (row[names.length] ?? {}) as { metadata?: string };
    const members = Object.fromEntries(
      names.map((name, place) => [name, row[place]]).filter(([, value]) => value !== null),
    );
    const createdAt = new Date(`${members.createdAt}Z`).toISOString();
    return { ...members, createdAt, ...rest, ...(metadata && { metadata: JSON.parse(metadata) }) };
  });
  expect(segmentText(accountId, entries)).toBe(text);
  const hash = segmentHash(accountId, entries);
  expect(docs).toContain(`Its hash is \`${hash}\``);
  const { version, epoch } = entries.at(-1) as HashedEntry;
  expect(docs).toContain(JSON.stringify({ accountId, version, epoch, hash }));

  await insertEntries(
    database.pool,
    entries.map(({ type, createdAt, ...body }) =>
      changeOf(accountId, type as never, new Date(createdAt), body as never),
    ),
  );
  const { rows: stored } = await database.pool.query(
    'SELECT ledger_entry_text(ledger) AS text FROM ledger ORDER BY version',
  );
  expect(stored).toEqual(entries.map((entry) => ({ text: entryText(entry) })));
  expect(await extend([accountId], 100)).toEqual({ hashed: entries.length, unfinished: [] });
  expect((await storedSegments(accountId)).map((segment) => segment.hash)).toEqual([hash]);

  const [code = ''] = blocks('js');
  const published = await import(`data:text/javascript,${encodeURIComponent(code)}`);
  expect(
    published.segmentHash(
      GENESIS,
      accountId,
      entries.map((entry) => ({ ...entry, eventId: 'x', recordedAt: 'y' })),
    ),
  ).toBe(hash);
});

it('has code in docs/ledger-chain.md that computes any segment', async () => {
  const docs = await readFile(new URL('../../docs/ledger-chain.md', import.meta.url), 'utf8');
  const code = /^```js\n(.*?)^```$/ms.exec(docs)?.[1] as string;
  const published = await import(`data:text/javascript,${encodeURIComponent(code)}`);
  fc.assert(
    fc.property(fc.array(entry, { minLength: 1, maxLength: 5 }), (members) => {
      const entries = members.map((one, version) => {
        const change = changeRow('a', version, one);
        return { type: change.type, createdAt: change.createdAt.toISOString(), ...changeBody(change) } as HashedEntry;
      });
      expect(published.segmentHash(GENESIS, 'a', entries)).toBe(segmentHash('a', entries));
    }),
    { numRuns: 500 },
  );
});

it('shows in docs/api.md the head and the segment of the history that is there', async () => {
  const docs = await readFile(new URL('../../docs/api.md', import.meta.url), 'utf8');
  const bodies = [...docs.matchAll(/^ *(\{"(?:accountId|id)":"alice",.*\})$/gm)].map(([, body]) =>
    JSON.parse(body as string),
  );
  const { createdAt, asset, overdraftLimit, status } = bodies.find((body) => body.id && body.version === 0);
  const shown: HashedEntry[] = bodies.find((body) => body.entries).entries.toReversed();
  // The page does not reach back to the opening, which is as the account was then.
  const { epoch, actor } = shown[0] as HashedEntry;
  const opening = {
    ...{ version: 0, epoch, type: 'account.opened', asset, amount: 0, heldChange: 0, balance: 0, held: 0 },
    ...{ createdAt, actor, limits: { overdraftLimit, status } },
  } as HashedEntry;
  expect(shown.map(({ version }) => version)).toEqual([1, 2]);
  const hash = segmentHash('alice', [opening, ...shown]);
  expect(bodies).toContainEqual({ accountId: 'alice', version: 2, epoch, hash });
  const segments = [{ firstVersion: 0, lastVersion: 2, hash }];
  expect(bodies).toContainEqual({ accountId: 'alice', segments, nextCursor: null });
});

it('chains up to a gap, and on when what was late is there', async () => {
  const chainer = chainerHere();
  await until('the first sweep is over', () => chainer.counts.sweeps === 1);
  await record('a', [4, 1, 0, 5]);
  chainer.tell('a');
  await until('the first two are chained', async () => (await chainedTo('a')) === 1);
  await record('a', [3]);
  await record('a', [2]);
  chainer.tell('a');
  await until('all are chained', async () => (await chainedTo('a')) === 5);
  expect(await bounds('a')).toEqual([
    [0, 1],
    [2, 5],
  ]);
  await expectChained('a', 5);
});

it('is done with an account that has much after a gap', async () => {
  await record('a', range(0, 4));
  await record('a', range(6, 100));
  expect(await extend(['a'], 10)).toEqual({ hashed: 5, unfinished: [] });
  expect(await extend(['a'], 10)).toEqual({ hashed: 0, unfinished: [] });
  await record('a', [5]);
  expect(await extend(['a'], 10)).toEqual({ hashed: 10, unfinished: ['a'] });
  await expectChained('a', 14);
});

it('finds a gap in each place of the entries that are waiting', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.integer({ min: 0, max: 2200 }), { maxLength: 3 }),
      fc.constantFrom(1, 999, 1000, 1001, 3000),
      async (missing, entriesMax) => {
        await database.pool.query(
          'ALTER TABLE ledger DISABLE TRIGGER ALL; ALTER TABLE ledger_chain DISABLE TRIGGER ALL',
        );
        await database.pool.query('TRUNCATE ledger, ledger_chain');
        await fillLedger(database.pool, ['a'], 0, 2200);
        await database.pool.query('DELETE FROM ledger WHERE version = ANY ($1)', [missing]);
        const reachable = Math.min(2201, ...missing);
        const found = await extend(['a'], entriesMax);
        const due = Math.min(entriesMax, reachable);
        expect(found).toEqual({ hashed: due, unfinished: due < reachable ? ['a'] : [] });
        if (due > 0) await expectChained('a', due - 1);
        await insertEntries(
          database.pool,
          missing.map((version) => changeRow('a', version)),
        );
        while ((await extend(['a'], 3000)).unfinished.length > 0);
        await expectChained('a', 2200);
      },
    ),
    { numRuns: 25 },
  );
});

it('makes a segment of a lone entry, and of nothing none', async () => {
  expect(await extend(['a', 'nobody'], 10)).toEqual({ hashed: 0, unfinished: [] });
  await record('a', [0]);
  expect(await extend(['a', 'nobody'], 10)).toEqual({ hashed: 1, unfinished: [] });
  expect(await extend(['a'], 10)).toEqual({ hashed: 0, unfinished: [] });
  await record('a', [1]);
  expect(await extend(['a'], 10)).toEqual({ hashed: 1, unfinished: [] });
  expect(await bounds('a')).toEqual([
    [0, 0],
    [1, 1],
  ]);
  await expectChained('a', 1);
});

it('makes segments of 1,000 entries at most, and cuts one where the step ends', async () => {
  await fillLedger(database.pool, ['a', 'b'], 0, 2499);
  expect(await extend(['a', 'b'], 1300)).toEqual({ hashed: 1300, unfinished: ['a', 'b'] });
  expect(await extend(['a', 'b'], 3000)).toEqual({ hashed: 3000, unfinished: ['b'] });
  expect(await extend(['b', 'a'], 10_000)).toEqual({ hashed: 700, unfinished: [] });
  expect(await bounds('a')).toEqual([
    [0, 999],
    [1000, 1299],
    [1300, 2299],
    [2300, 2499],
  ]);
  expect(await bounds('b')).toEqual([
    [0, 999],
    [1000, 1799],
    [1800, 2499],
  ]);
  for (const account of ['a', 'b']) await expectChained(account, 2499);
});

it('chains a ledger that was there before, accounts in turn', async () => {
  await fillLedger(database.pool, ['hot'], 0, 19_999);
  await fillLedger(
    database.pool,
    range(1, 5000).map((number) => `m${number}`),
    0,
    1,
  );
  await startWorkerHere(database, broker);
  await until('all are chained', async () => (await hashed()) === 30_000);
  await expectChained('hot', 19_999);
  await expectChained('m4711', 1);
});

it('looks at accounts and not at entries when it starts again', async () => {
  await fillLedger(database.pool, ['a', 'b', 'c'], 0, 9999);
  const first = chainerHere();
  await until('all are chained', () => first.counts.hashed === 30_000);
  await first.stop();
  const before = await rowsRead();
  const second = chainerHere();
  await until('the sweep is over', () => second.counts.sweeps === 1);
  await second.stop();
  expect((await rowsRead()) - before).toBeLessThan(50);
});

/** By sessions that are over: a session's own counts arrive at its end at the latest. */
async function rowsRead(): Promise<number> {
  const sessions = `SELECT FROM pg_stat_activity WHERE application_name LIKE '%test chainer' AND datname = current_database()`;
  await until('no session is left', async () => (await database.pool.query(sessions)).rowCount === 0);
  const { rows } = await database.pool.query(`
    SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname LIKE 'ledger%')
         + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname LIKE 'ledger%') AS rows`);
  return Number(rows[0].rows);
}

it('finds by a sweep what it was never notified of', async () => {
  const chainer = chainerHere({ sweepPauseMs: 20 });
  await until('the first sweep is over', () => chainer.counts.sweeps > 0);
  await record('a', [0]);
  await until('it is chained', async () => (await chainedTo('a')) === 0);
});

it('finds by a sweep what it was notified of and could not remember', async () => {
  const chainer = chainerHere({ waitingAccounts: 3, stepAccounts: 2 });
  await until('the first sweep is over', () => chainer.counts.sweeps === 1);
  const accounts = range(1, 20).map((number) => `a${number}`);
  for (const account of accounts) await record(account, [0]);
  for (const account of accounts) chainer.tell(account);
  await until('all are chained', async () => (await hashed()) === accounts.length);
});

it('chains everything once with two at work, whatever order the entries come in', async () => {
  const chainers = [chainerHere({ stepEntries: 50, stepAccounts: 3 }), chainerHere({ stepEntries: 70 })];
  const accounts = ['a', 'b', 'c', 'd', 'e'];
  for (let first = 0; first <= 900; first += 100) {
    for (const account of accounts) {
      const versions = range(first, first + 99);
      const late = versions.filter((version) => version % 7 === 3);
      for (const part of [versions.filter((version) => !late.includes(version)).reverse(), late]) {
        await record(account, part);
        for (const chainer of chainers) chainer.tell(account);
      }
    }
  }
  await until('all are chained', async () => (await hashed()) === 5000);
  for (const account of accounts) await expectChained(account, 999);
  expect(chainers.map(({ counts }) => counts.retries)).toEqual([0, 0]);
  expect(chainers.reduce((sum, { counts }) => sum + counts.hashed, 0)).toBe(5000);
});

it('hashes what it counts where gaps are filled while it looks', async () => {
  const rounds = range(0, 59).map((round) => `gap-${round}`);
  const extend = () => database.pool.query('SELECT extend_ledger_chain($1, 10000)', [rounds]);
  for (const account of rounds) await record(account, [...range(0, 20), ...range(22, 40)]);
  // Account by account, while the function goes through them.
  const fill = async (version: number) => {
    for (const account of rounds) await record(account, [version]);
  };
  let isFilled = false;
  await Promise.all([
    fill(21).finally(() => {
      isFilled = true;
    }),
    (async () => {
      while (!isFilled) await extend();
    })(),
  ]);
  await extend();
  for (const account of rounds) await expectChained(account, 40);
});

it('continues when the database is back, and has chained what it knows of when it stops', async () => {
  const chainer = chainerHere();
  await until('the first sweep is over', () => chainer.counts.sweeps === 1);
  await database.pool.query('ALTER TABLE ledger_chain RENAME TO ledger_chain_away');
  await record('a', [0, 1]);
  chainer.tell('a');
  await until('it tried in vain', () => chainer.counts.retries > 0);
  await database.pool.query('ALTER TABLE ledger_chain_away RENAME TO ledger_chain');
  await until('they are chained', async () => (await chainedTo('a')) === 1);
  await record('a', [2]);
  chainer.tell('a');
  await chainer.stop();
  expect(await chainedTo('a')).toBe(2);
});

it('leaves right chains when workers are killed while they write them', async () => {
  const accounts = ['a', 'b', 'c'];
  await fillLedger(database.pool, accounts, 0, 39_999);
  await insertAccountRows(database.pool, accounts, 39_999);
  for (const enough of [1, 20_001, 50_001]) {
    const worker = await spawnProcess('worker', environmentOf(database, broker, { LOG_LEVEL: 'silent' }));
    await until('it has chained some', async () => (await hashed()) >= enough);
    await worker.kill();
    const { unchainedEntries, offenders } = await verified(database);
    expect(unchainedEntries).toBeGreaterThan(0); // it was killed in the middle of it
    expect(offenders).toEqual([]);
  }
  await startWorkerHere(database, broker);
  await until('all are chained', async () => (await hashed()) === 120_000, 60_000);
  for (const account of accounts) await expectChained(account, 39_999);
  expect(await verified(database)).toMatchObject({ unchainedEntries: 0, offendingAccounts: 0 });
});
