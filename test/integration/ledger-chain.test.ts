// The hash chains: what the worker writes is what anybody computes from the entries that the API shows, whatever order the
// entries came in, and whoever wrote them.
import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createPool } from '../../src/shared/database.ts';
import { createLogger } from '../../src/shared/logging.ts';
import { type Chainer, type ChainerOptions, startChainer } from '../../src/worker/chainer.ts';
import { type HashedEntry, recomputeHead } from '../chain-model.ts';
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
} from '../harness.ts';

const GENESIS = '0'.repeat(64);

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
async function record(accountId: string, versions: number[]): Promise<void> {
  await database.pool.query(
    `INSERT INTO ledger (account_id, version, amount, balance, created_at)
     SELECT $1, version, 1, version, '2026-11-23T20:00:00Z' FROM unnest($2::bigint[]) AS version`,
    [accountId, versions],
  );
}

const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, index) => first + index);

/** What {@link record} has an account of that many entries end with. */
function recordedHead(accountId: string, version: number): string {
  const entries = range(1, version).map((one) => ({
    version: one,
    amount: 1,
    balance: one,
    createdAt: '2026-11-23T20:00:00.000Z',
  }));
  return recomputeHead(accountId, entries);
}

async function storedHead(accountId: string): Promise<{ version: number; hash: string }> {
  const { rows } = await database.pool.query(
    `SELECT version, encode(hash, 'hex') AS hash FROM ledger_chain WHERE account_id = $1 ORDER BY version DESC LIMIT 1`,
    [accountId],
  );
  return rows[0] ?? { version: 0, hash: GENESIS };
}

const hashes = async () => (await database.pool.query('SELECT count(*) AS count FROM ledger_chain')).rows[0].count;

/** The entries of an account as the API shows them, oldest first. */
async function readEntries(url: string, accountId: string, limit = 1000): Promise<HashedEntry[]> {
  const entries: HashedEntry[] = [];
  let cursor: string | null = null;
  do {
    const page = await send(
      url,
      'GET',
      `/v1/accounts/${accountId}/entries?limit=${limit}${cursor ? `&cursor=${cursor}` : ''}`,
    );
    entries.push(...page.body.entries);
    cursor = page.body.nextCursor;
  } while (cursor);
  return entries.reverse();
}

it('gives a head over the API that a client computes from the entries', async () => {
  const { url } = await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  await createAccount(url, 'alice');
  expect((await send(url, 'GET', '/v1/accounts/alice/chain-head')).body).toEqual({
    accountId: 'alice',
    version: 0,
    hash: GENESIS,
  });
  const references = ['order 1', undefined, '"quoted" \\ / <b>', 'Grüße 漢字 🎉', '\u2028', '{"version":1}'];
  for (const reference of references) {
    const update = { accountId: 'alice', amount: 250, ...(reference && { reference }) };
    expect((await send(url, 'POST', '/v1/balance-updates', update)).status).toBe(200);
  }
  const head = async () => (await send(url, 'GET', '/v1/accounts/alice/chain-head')).body;
  await until('all are chained', async () => (await head()).version === references.length);
  const hash = recomputeHead('alice', await readEntries(url, 'alice', 4));
  expect(await head()).toEqual({ accountId: 'alice', version: references.length, hash });
  // From a head that was kept, the entries behind it are enough.
  const all = await readEntries(url, 'alice');
  expect(recomputeHead('alice', all.slice(2), recomputeHead('alice', all.slice(0, 2)))).toBe(hash);
  expect((await send(url, 'GET', '/v1/accounts/nobody/chain-head')).body.code).toBe('account_not_found');
});

it('hashes whatever can stand in an entry as its description says', async () => {
  const { url } = await startApiHere(database, broker);
  const text = fc.option(fc.string({ unit: 'binary', maxLength: 20 }).filter((value) => !value.includes('\0')));
  const entry = fc.record({
    amount: fc.maxSafeInteger().filter((value) => value !== 0),
    balance: fc.maxSafeInteger(),
    reference: text,
    actor: text,
    createdAt: fc.date({ min: new Date('1000-01-01'), max: new Date('9999-12-31T23:59:59.999Z'), noInvalidDate: true }),
  });
  const histories = fc.array(fc.array(entry, { minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 5 });
  let run = 0;
  await fc.assert(
    fc.asyncProperty(histories, fc.integer({ min: 1, max: 30 }), async (accounts, entriesMax) => {
      run += 1;
      const ids = accounts.map((_, index) => `run-${run}-${index}`);
      await insertAccounts(database, ...ids);
      for (const [index, entries] of accounts.entries()) {
        await database.pool.query(
          `INSERT INTO ledger (account_id, version, amount, balance, reference, actor, created_at)
           SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::timestamptz[])`,
          [
            ids[index],
            entries.map((_, place) => place + 1),
            entries.map((one) => one.amount),
            entries.map((one) => one.balance),
            entries.map((one) => one.reference),
            entries.map((one) => one.actor),
            entries.map((one) => one.createdAt.toISOString()),
          ],
        );
      }
      for (let waiting = ids; waiting.length > 0; ) {
        const extend = 'SELECT written, unfinished FROM extend_ledger_chain($1, $2)';
        const [{ written, unfinished }] = (await database.pool.query(extend, [waiting, entriesMax])).rows;
        expect(written).toBeGreaterThan(0);
        waiting = unfinished;
      }
      for (const id of ids) {
        const { body } = await send(url, 'GET', `/v1/accounts/${id}/chain-head`);
        expect(body.hash).toBe(recomputeHead(id, await readEntries(url, id)));
      }
    }),
    { numRuns: 40 },
  );
});

it('hashes to other bytes what the service never writes, too', async () => {
  const row = (values: string) => `ROW('a', 1, 1, 1, ${values})::ledger`;
  const rows = [
    ...["NULL, '2026-11-23', NULL, NULL", "'', '2026-11-23', NULL, NULL", "NULL, '2026-11-23', NULL, ''"],
    ...["'', '2026-11-23', NULL, ''", "'x', '2026-11-23', NULL, NULL", "NULL, '2026-11-23', NULL, 'x'"],
    ...[
      `'","version":1}', '2026-11-23', NULL, NULL`,
      "'\\u0001', '2026-11-23', NULL, NULL",
      "E'\\u0001', '2026-11-23', NULL, NULL",
    ],
    ...["NULL, '2026-11-23 BC', NULL, NULL", "NULL, '0001-01-01', NULL, NULL", "NULL, '0001-01-01 BC', NULL, NULL"],
    ...["NULL, '12026-11-23', NULL, NULL", "NULL, 'infinity', NULL, NULL", "NULL, '-infinity', NULL, NULL"],
  ];
  const { rows: bytes } = await database.pool.query(
    `SELECT DISTINCT ledger_entry_bytes(entry) AS bytes FROM unnest(ARRAY[${rows.map(row).join(', ')}]) AS entry`,
  );
  expect(bytes).toHaveLength(rows.length);
  expect(bytes.every((one) => one.bytes !== null)).toBe(true);
});

it('does what docs/ledger-chain.md shows, byte for byte', async () => {
  const docs = await readFile(new URL('../../docs/ledger-chain.md', import.meta.url), 'utf8');
  const blocks = (language: string) =>
    [...docs.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, 'gms'))].map(([, block]) => block as string);
  const [canonical = ''] = blocks('json').map((block) => block.trim());
  const { accountId, ...entry } = JSON.parse(canonical);
  const hash = recomputeHead(accountId, [entry]);
  expect(docs).toContain(hash);
  await database.pool.query(
    'INSERT INTO ledger (account_id, version, amount, balance, reference, actor, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)',
    [accountId, entry.version, entry.amount, entry.balance, entry.reference, entry.actor, entry.createdAt],
  );
  const { rows } = await database.pool.query(
    `SELECT convert_from(ledger_entry_bytes(ledger), 'UTF8') AS bytes FROM ledger`,
  );
  expect(rows).toEqual([{ bytes: canonical }]);
  const [code = ''] = blocks('js');
  const { nextHash } = await import(`data:text/javascript,${encodeURIComponent(code)}`);
  expect(nextHash(GENESIS, accountId, { ...entry, eventId: 'x', recordedAt: 'y' })).toBe(hash);
});

it('shows in docs/api.md the head of the history that stands there', async () => {
  const docs = await readFile(new URL('../../docs/api.md', import.meta.url), 'utf8');
  const bodies = [...docs.matchAll(/^\{"accountId":"alice","version":1,.*\}$/gm)].map(([body]) => JSON.parse(body));
  const { entries } = bodies.find((body) => body.entries);
  expect(bodies).toContainEqual({ accountId: 'alice', version: 1, hash: recomputeHead('alice', entries) });
});

it('chains up to a gap, and on when what was late is there', async () => {
  const chainer = chainerHere();
  await until('the first sweep is over', () => chainer.counts.sweeps === 1);
  await record('a', [5, 2, 1, 6]);
  chainer.tell('a');
  await until('the first two are chained', async () => (await storedHead('a')).version === 2);
  await record('a', [4]);
  await record('a', [3]);
  chainer.tell('a');
  await until('all are chained', async () => (await storedHead('a')).version === 6);
  expect((await storedHead('a')).hash).toBe(recordedHead('a', 6));
});

it('is done with an account that has much behind a gap', async () => {
  await record('a', range(1, 5));
  await record('a', range(7, 100));
  const extend = async () =>
    (await database.pool.query(`SELECT written, unfinished FROM extend_ledger_chain('{a}', 10)`)).rows[0];
  expect(await extend()).toEqual({ written: 5, unfinished: [] });
  expect(await extend()).toEqual({ written: 0, unfinished: [] });
  await record('a', [6]);
  expect(await extend()).toEqual({ written: 10, unfinished: ['a'] });
});

it('chains a ledger that was there before, accounts in turn', async () => {
  await record('hot', range(1, 20_000));
  await database.pool.query(
    `INSERT INTO ledger (account_id, version, amount, balance, created_at)
     SELECT 'm' || account, version, 1, version, '2026-11-23T20:00:00Z'
     FROM generate_series(1, 5000) AS account, generate_series(1, 2) AS version`,
  );
  await startWorkerHere(database, broker);
  await until('all are chained', async () => (await hashes()) === 30_000);
  expect(await storedHead('hot')).toEqual({ version: 20_000, hash: recordedHead('hot', 20_000) });
  expect(await storedHead('m4711')).toEqual({ version: 2, hash: recordedHead('m4711', 2) });
});

it('looks at accounts and not at entries when it starts again', async () => {
  for (const account of ['a', 'b', 'c']) await record(account, range(1, 10_000));
  const first = chainerHere();
  await until('all are chained', () => first.counts.written === 30_000);
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

it('finds by a sweep what nobody told it of', async () => {
  const chainer = chainerHere({ sweepPauseMs: 20 });
  await until('the first sweep is over', () => chainer.counts.sweeps > 0);
  await record('a', [1]);
  await until('it is chained', async () => (await storedHead('a')).version === 1);
});

it('finds by a sweep what it was told of and could not remember', async () => {
  const chainer = chainerHere({ waitingAccounts: 3, stepAccounts: 2 });
  await until('the first sweep is over', () => chainer.counts.sweeps === 1);
  const accounts = range(1, 20).map((number) => `a${number}`);
  for (const account of accounts) await record(account, [1]);
  for (const account of accounts) chainer.tell(account);
  await until('all are chained', async () => (await hashes()) === accounts.length);
});

it('chains everything once with two at work', async () => {
  const chainers = [chainerHere({ stepEntries: 50, stepAccounts: 3 }), chainerHere({ stepEntries: 70 })];
  const accounts = ['a', 'b', 'c', 'd', 'e'];
  for (let first = 1; first <= 901; first += 100) {
    for (const account of accounts) {
      await record(account, range(first, first + 99));
      for (const chainer of chainers) chainer.tell(account);
    }
  }
  await until('all are chained', async () => (await hashes()) === 5000);
  for (const account of accounts) expect((await storedHead(account)).hash).toBe(recordedHead(account, 1000));
  expect(chainers.map(({ counts }) => counts.retries)).toEqual([0, 0]);
  expect(chainers.reduce((sum, { counts }) => sum + counts.written, 0)).toBe(5000);
});

it('goes on when the database is back, and has chained what it knows of when it stops', async () => {
  const chainer = chainerHere();
  await until('the first sweep is over', () => chainer.counts.sweeps === 1);
  await database.pool.query('ALTER TABLE ledger_chain RENAME TO ledger_chain_away');
  await record('a', [1, 2]);
  chainer.tell('a');
  await until('it tried in vain', () => chainer.counts.retries > 0);
  await database.pool.query('ALTER TABLE ledger_chain_away RENAME TO ledger_chain');
  await until('they are chained', async () => (await storedHead('a')).version === 2);
  await record('a', [3]);
  chainer.tell('a');
  await chainer.stop();
  expect((await storedHead('a')).version).toBe(3);
});

it('leaves right chains when workers are killed while they write them', async () => {
  const accounts = ['a', 'b', 'c'];
  for (const account of accounts) await record(account, range(1, 40_000));
  await database.pool.query(
    `INSERT INTO account (account_id, balance, version, created_at, updated_at)
     SELECT account_id, 40000, 40000, now(), now() FROM unnest($1::text[]) AS account_id`,
    [accounts],
  );
  for (const enough of [1, 20_001, 50_001]) {
    const worker = await spawnProcess('worker', environmentOf(database, broker, { LOG_LEVEL: 'silent' }));
    await until('it has chained some', async () => (await hashes()) >= enough);
    await worker.kill();
    const { unchainedEntries, offenders } = await verified(database);
    expect(unchainedEntries).toBeGreaterThan(0); // it was killed in the middle of it
    expect(offenders).toEqual([]);
  }
  await startWorkerHere(database, broker);
  await until('all are chained', async () => (await hashes()) === 120_000, 60_000);
  for (const account of accounts) expect((await storedHead(account)).hash).toBe(recordedHead(account, 40_000));
  expect(await verified(database)).toMatchObject({ unchainedEntries: 0, offendingAccounts: 0 });
});
