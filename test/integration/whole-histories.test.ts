// Histories while entries are recorded in another order than that of their versions, as several
// workers do: whatever shows one ends before its first hole.
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LEDGER_VERSION } from '../../src/api/calls/ledger-version.ts';
import { createClient } from '../../src/client/client.ts';
import type { Change } from '../../src/shared/change.ts';
import { recordChanges } from '../../src/worker/ledger.ts';
import {
  applyDirectly,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  fillLedger,
  insertAccounts,
  insertChange,
  onCleanUp,
  outboxChanges,
  send,
  startApiHere,
  until,
} from '../support/harness.ts';

let database: Database;
let url: string;

beforeAll(async () => {
  database = await createDatabase(); // without a worker: each test records what it wants, when it wants
  ({ url } = await startApiHere(database, createBroker(), { RELAY: 'off' }));
});
afterAll(cleanUp);

const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, index) => first + index);
const get = async (path: string) => {
  const { status, body } = await send(url, 'GET', path);
  expect(status, JSON.stringify(body)).toBe(200);
  return body;
};
const entriesOf = (id: string, query = 'limit=1000') => get(`/v1/accounts/${id}/entries?${query}`);
const versionsIn = ({ entries }: { entries: { version: number }[] }) => entries.map(({ version }) => version);

/** Versions 0 to `last`, of which the ledger has none yet. */
async function openWithChanges(id: string, last: number): Promise<Change[]> {
  await insertAccounts(database, id);
  if (last > 0) await applyDirectly(database.pool, id, 1, last);
  return outboxChanges(database, id);
}

const record = async (changes: readonly Change[], versions: readonly number[]) =>
  recordChanges(
    database.pool,
    versions.map((version) => changes[version] as Change),
  );
const extendChain = (id: string) => database.pool.query('SELECT extend_ledger_chain(ARRAY[$1], 10000)', [id]);
/** As when the relay truncates what is recorded. */
const leaveOutbox = (id: string, below: number) =>
  database.pool.query('DELETE FROM outbox WHERE account_id = $1 AND version < $2', [id, below]);

async function exported(id: string, query = ''): Promise<{ versions: number[]; ledgerVersion: number | null }> {
  const response = await fetch(`${url}/v1/accounts/${id}/entries/export?format=jsonl${query}`);
  expect(response.status).toBe(200);
  const header = response.headers.get('ledger-version');
  const lines = (await response.text()).split('\n').slice(0, -1);
  return {
    versions: lines.map((line) => JSON.parse(line).version),
    ledgerVersion: header === null ? null : Number(header),
  };
}

describe('a hole in the ledger', () => {
  let changes: Change[];

  beforeAll(async () => {
    changes = await openWithChanges('torn', 7);
    await record(changes, [7, 5, 3, 1, 0]);
  });

  it('ends the pages before it', async () => {
    const page = await entriesOf('torn');
    expect(page).toMatchObject({ version: 7, ledgerVersion: 1, nextCursor: null });
    expect(versionsIn(page)).toEqual([1, 0]);
    expect(versionsIn(await entriesOf('torn', 'cursor=6'))).toEqual([1, 0]);
    expect(await entriesOf('torn', 'limit=1')).toMatchObject({ entries: [{ version: 1 }], nextCursor: '1' });
  });

  it('ends what a filter lets through', async () => {
    const all = { from: '2020-01-01T00:00:00Z', to: '2999-01-01T00:00:00Z', type: 'balance.credited' };
    for (const names of [['from'], ['to'], ['type'], ['from', 'to', 'type']] as const) {
      const query = new URLSearchParams(Object.fromEntries(names.map((name) => [name, all[name]]))).toString();
      const expected = names.includes('type' as never) ? [1] : [1, 0];
      expect(versionsIn(await entriesOf('torn', query)), query).toEqual(expected);
      expect((await exported('torn', `&${query}`)).versions, query).toEqual(expected.toReversed());
    }
  });

  it('ends an export, which says up to where it is complete, and what the client reads', async () => {
    expect(await exported('torn')).toEqual({ versions: [0, 1], ledgerVersion: 1 });
    const read: number[] = [];
    for await (const { version } of createClient({ url }).entries('torn')) read.push(version);
    expect(read).toEqual([1, 0]);
  });

  it('ends the balances that the console draws', async () => {
    const { ledgerVersion, every, points } = await get('/console/accounts/torn/balances');
    expect({ ledgerVersion, every, balances: points.map(([, balance]: number[]) => balance) }).toEqual({
      ...{ ledgerVersion: 1, every: 1, balances: [0, 1] },
    });
  });

  it('is none in past balances and in the proof of an account', async () => {
    for (const version of range(0, 7)) {
      expect(await get(`/v1/accounts/torn/balance?version=${version}`)).toMatchObject({ version, balance: version });
    }
    const now = (await database.pool.query('SELECT clock_timestamp() AS now')).rows[0].now.toISOString();
    expect(await get(`/v1/accounts/torn/balance?at=${now}`)).toMatchObject({ version: 7, balance: 7 });
    expect(await get('/v1/accounts/torn/verification')).toMatchObject({
      ...{ verified: true, version: 7, ledgerEntries: 5, pendingChanges: 3 },
    });
  });

  it('is over when it is filled, one after the other', async () => {
    await record(changes, [4]);
    expect(await entriesOf('torn', 'limit=1')).toMatchObject({ ledgerVersion: 1 });
    await record(changes, [2]);
    expect(await entriesOf('torn', 'limit=1')).toMatchObject({ ledgerVersion: 5, entries: [{ version: 5 }] });
    await record(changes, [6]);
    expect(versionsIn(await entriesOf('torn'))).toEqual(range(0, 7).toReversed());
    expect(await exported('torn')).toEqual({ versions: range(0, 7), ledgerVersion: 7 });
  });
});

it('without the opening a history is empty', async () => {
  const changes = await openWithChanges('unopened', 2);
  const nothing = { ledgerVersion: null, entries: [], nextCursor: null };
  expect(await entriesOf('unopened')).toEqual({ accountId: 'unopened', version: 2, ...nothing });
  await record(changes, [2, 1]);
  expect(await entriesOf('unopened')).toEqual({ accountId: 'unopened', version: 2, ...nothing });
  expect(await exported('unopened')).toEqual({ versions: [], ledgerVersion: null });
  expect(await get('/console/accounts/unopened/balances')).toMatchObject({ ledgerVersion: null, points: [] });
});

it('a transfer has all its legs, whichever of them the ledger has', async () => {
  await openWithChanges('payer', 5);
  await openWithChanges('payee', 0);
  const body = { from: 'payer', to: 'payee', amount: 3 };
  const { transferId, legs } = (await send(url, 'POST', '/v1/transfers', body)).body;
  const sides = [await outboxChanges(database, 'payer'), await outboxChanges(database, 'payee')] as const;
  const transfer = () => get(`/v1/transfers/${transferId}`);
  expect((await transfer()).legs).toEqual(legs);
  await record(sides[1], [1, 0]);
  expect((await transfer()).legs).toEqual(legs);
  // The entries of one transfer are those of a history too: this one is not shown before what comes
  // before it.
  await record(sides[0], [6, 0]);
  expect((await transfer()).legs).toEqual(legs);
  expect(versionsIn(await entriesOf('payer', `transferId=${transferId}`))).toEqual([]);
  expect(versionsIn(await entriesOf('payee', `transferId=${transferId}`))).toEqual([1]);
});

describe('the first hole is found', () => {
  it('above the end of the hash chain, and above what has left the outbox', async () => {
    const changes = await openWithChanges('proven', 30);
    await record(changes, [...range(0, 9), ...range(11, 20), ...range(22, 30)]);
    await extendChain('proven');
    expect(await entriesOf('proven', 'limit=1')).toMatchObject({ ledgerVersion: 9 });
    await record(changes, [10]);
    expect(await entriesOf('proven', 'limit=1')).toMatchObject({ ledgerVersion: 20 });
    await leaveOutbox('proven', 15);
    expect(await entriesOf('proven', 'limit=1')).toMatchObject({ ledgerVersion: 20 });
    await leaveOutbox('proven', 21);
    expect(await entriesOf('proven', 'limit=1')).toMatchObject({ ledgerVersion: 20 });
    await record(changes, [21]);
    await leaveOutbox('proven', 31);
    expect(await entriesOf('proven', 'limit=1')).toMatchObject({ version: 30, ledgerVersion: 30 });
  });

  it('without going through a long history, and a bounded part of one that has no hashes', async () => {
    const last = 60_000;
    await insertAccounts(database, 'long');
    await database.pool.query(`UPDATE account SET version = $1, balance = $1 WHERE account_id = 'long'`, [last]);
    await database.pool.query(
      `INSERT INTO ledger (account_id, version, epoch, type, asset, amount, held_change, balance, held, overdraft_limit, status, created_at)
       SELECT account_id, version, epoch, type, asset, amount, held_change, balance, held, overdraft_limit, status, created_at
       FROM outbox WHERE account_id = 'long'`,
    );
    await fillLedger(database, 'long', last);
    expect(await entriesOf('long', 'limit=1')).toMatchObject({ version: last, ledgerVersion: 49_999 });
    for (let round = 0; round < 7; round += 1) await extendChain('long');
    const explain = await database.pool.query(
      `EXPLAIN (ANALYZE, FORMAT JSON) SELECT ${LEDGER_VERSION} FROM account WHERE account.account_id = 'long'`,
    );
    const scans = JSON.stringify(explain.rows).match(/"Relation Name":"ledger".*?"Actual Rows":([\d.]+)/g) ?? [];
    expect(scans.length).toBeGreaterThan(0);
    const rows = scans.map((scan) => Number(scan.split(':').at(-1)));
    expect(rows.reduce((sum, count) => sum + count, 0)).toBeLessThan(10);
    expect(await entriesOf('long', 'limit=1')).toMatchObject({ version: last, ledgerVersion: last });
  });
});

// TRUNCATE is not MVCC-safe: with a snapshot from before the last entry was recorded, and the
// outbox truncated since, a change would be in neither. The reader waits for the lock of the
// truncation here, while what its snapshot must show is recorded.
it('what is recorded and truncated while a reader waits is in what it reads', async () => {
  const changes = await openWithChanges('waiting', 3);
  await openWithChanges('other', 0);
  const body = { from: 'waiting', to: 'other', amount: 1 };
  const { transferId, legs } = (await send(url, 'POST', '/v1/transfers', body)).body;
  changes.push((await outboxChanges(database, 'waiting')).at(-1) as Change);
  await record(changes, [0, 1, 3]);
  const parts = await database.pool.query(
    `SELECT string_agg(inhrelid::regclass::text, ', ') AS names FROM pg_inherits WHERE inhparent = 'outbox'::regclass`,
  );
  const relay = await database.pool.connect();
  onCleanUp(async () => relay.release(true));
  await relay.query(`BEGIN; LOCK TABLE ${parts.rows[0].names} IN ACCESS EXCLUSIVE MODE`);
  const reading = Promise.all([
    entriesOf('waiting'),
    get('/v1/accounts/waiting/balance?version=4'),
    get(`/v1/transfers/${transferId}`),
  ]);
  await until('all of them wait', async () => {
    const waiting = await database.pool.query(
      'SELECT count(DISTINCT pid) AS count FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())',
    );
    return waiting.rows[0].count >= 3;
  });
  for (const version of [2, 4]) await insertChange(database, 'ledger', changes[version] as Change);
  const otherLeg = { ...(changes[4] as Change), accountId: 'other', version: 1, ...{ amount: 1, balance: 1 } };
  await insertChange(database, 'ledger', { ...otherLeg, type: 'balance.credited' });
  await relay.query(`TRUNCATE ${parts.rows[0].names}; COMMIT`);
  const [page, balance, transfer] = await reading;
  expect({ ledgerVersion: page.ledgerVersion, versions: versionsIn(page) }).toEqual({
    ...{ ledgerVersion: 4, versions: [4, 3, 2, 1, 0] },
  });
  expect(balance).toMatchObject({ version: 4, balance: 2 });
  expect(transfer.legs).toEqual(legs);
});

// Two recorders take turns at random, as two workers do with what each was delivered, while others
// read, hash and truncate.
it('every page, export and plot is complete at any moment while two record in any order', {
  timeout: 60_000,
}, async () => {
  const last = 1500;
  const changes = await openWithChanges('shared', last);
  let random = 20261129;
  const below = (limit: number) => {
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
    return Math.floor((random / 2 ** 32) * limit);
  };
  // In chunks of up to 20, each among its neighbours.
  const chunks: number[][] = [];
  for (let next = 0; next <= last; ) {
    const chunk = range(next, Math.min(last, next + below(20)));
    next += chunk.length;
    chunks.splice(Math.max(0, chunks.length - below(6)), 0, chunk);
  }
  const [sent, recorded] = [new Set<number>(), new Set<number>()];
  const endOf = (versions: ReadonlySet<number>) => {
    let version = -1;
    while (versions.has(version + 1)) version += 1;
    return version;
  };

  let isOver = false;
  async function recorder(): Promise<void> {
    for (let chunk = chunks.shift(); chunk; chunk = chunks.shift()) {
      for (const version of chunk) sent.add(version);
      await record(changes, chunk);
      for (const version of chunk) recorded.add(version);
      await delay(below(30));
    }
  }
  async function others(): Promise<void> {
    while (!isOver) {
      await extendChain('shared');
      await leaveOutbox('shared', below(endOf(recorded) + 2));
      await delay(below(200));
    }
  }

  interface Reading {
    ledgerVersion: number | null;
    /** Oldest first. */
    versions: number[];
  }
  const reads: (() => Promise<Reading>)[] = [
    async () => {
      let page = await entriesOf('shared', 'limit=200');
      const { ledgerVersion } = page;
      const versions = versionsIn(page);
      while (page.nextCursor !== null) {
        page = await entriesOf('shared', `limit=200&cursor=${page.nextCursor}`);
        versions.push(...versionsIn(page));
      }
      return { ledgerVersion, versions: versions.reverse() };
    },
    () => exported('shared'),
    async () => {
      const { ledgerVersion, every, points } = await get('/console/accounts/shared/balances');
      const end = ledgerVersion ?? -1;
      const drawn = range(0, end).filter((version) => version === 0 || (end - version) % every === 0);
      expect(points.map(([, balance]: number[]) => balance)).toEqual(drawn); // each left its own version
      return { ledgerVersion, versions: range(0, end) };
    },
  ];
  let withHole = 0;
  /**
   * Complete up to where it says, and that is where the ledger had its first hole at some moment of
   * the reading.
   */
  async function judge(read: () => Promise<Reading>): Promise<void> {
    const atLeast = endOf(recorded);
    const hasHole = recorded.size > atLeast + 1;
    const { ledgerVersion, versions } = await read();
    const end = ledgerVersion ?? -1;
    expect(versions).toEqual(range(0, end));
    expect(end).toBeGreaterThanOrEqual(atLeast);
    expect(end).toBeLessThanOrEqual(endOf(sent));
    if (hasHole) withHole += 1;
  }
  async function reader(read: () => Promise<Reading>): Promise<void> {
    while (!isOver) await judge(read);
  }

  const recording = Promise.all([recorder(), recorder()]).finally(() => {
    isOver = true;
  });
  await Promise.all([recording, others(), ...reads.map(reader)]);
  for (const read of reads) await judge(read);
  expect(endOf(recorded)).toBe(last);
  expect(withHole).toBeGreaterThan(20);
});
