// docs/retention.md: its SQL runs, its archive can be checked with the code of ledger-chain.md, and
// what it says of removed and truncated rows is what happens.
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Change } from '../../src/shared/change.ts';
import { EVENT_CONTENT_TYPE, encodeEvent } from '../../src/shared/events.ts';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  createFolder,
  type Database,
  drained,
  eventIds,
  headsOf,
  insertAccounts,
  outboxChanges,
  send,
  startApiHere,
  startWorkerHere,
  until,
  verified,
} from '../support/harness.ts';
import { disarm } from '../support/ledger-rows.ts';

let database: Database;
let broker: Broker;
let url: string;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
  ({ url } = await startApiHere(database, broker));
});
afterEach(cleanUp);

const read = (file: string) => readFile(new URL(`../../${file}`, import.meta.url), 'utf8');

async function sqlOf(page: string): Promise<string[]> {
  return [...(await read(page)).matchAll(/^```sql\n(.*?)^```$/gms)].map(([, sql = '']) => sql);
}

it('shows statements that run, and answer something', async () => {
  await insertAccounts(database, 'alice');
  await database.pool.query('ANALYZE');
  const statements = await sqlOf('docs/retention.md');
  expect(statements.length).toBeGreaterThanOrEqual(2);
  for (const statement of statements) {
    const { rows, command } = await database.pool.query(statement);
    if (command === 'SELECT') expect(rows.length, statement).toBeGreaterThan(0);
  }
});

it('shows an archive of an account that anyone can check', async () => {
  await startWorkerHere(database, broker);
  await insertAccounts(database, 'alice');
  for (let version = 1; version <= 30; version += 1) await applyDirectly(database.pool, 'alice', version);
  await drained(database);
  await until('the chain has caught up', async () => (await headsOf(database))[0]?.version === 30);
  const code = /^```js\n(.*?)^```$/ms.exec(await read('docs/ledger-chain.md'))?.[1] ?? '';
  const file = path.join(await createFolder(), 'hash.mjs');
  await writeFile(file, code);
  const { segmentHash } = await import(file);
  const text = await (await fetch(`${url}/v1/accounts/alice/entries/export?format=jsonl`)).text();
  const entries = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const { body } = await send(url, 'GET', '/v1/accounts/alice/chain-segments?limit=1000');
  let hash = '0'.repeat(64);
  for (const segment of body.segments) {
    const its = entries.filter(({ version }) => version >= segment.firstVersion && version <= segment.lastVersion);
    hash = segmentHash(hash, 'alice', its);
    expect(hash).toBe(segment.hash);
  }
  expect(await headsOf(database)).toMatchObject([{ accountId: 'alice', version: 30, hash }]);
});

describe('of old entries that were removed', () => {
  let old: Change;

  beforeEach(async () => {
    await startWorkerHere(database, broker);
    await insertAccounts(database, 'alice');
    for (let count = 0; count < 5; count += 1) await applyDirectly(database.pool, 'alice', 10);
    await drained(database);
    await until('the chain has caught up', async () => (await headsOf(database))[0]?.version === 5);
    old = (await outboxChanges(database, 'alice'))[1] as Change;
    expect(old.version).toBe(1);
    await disarm(database.pool);
    await database.pool.query('TRUNCATE outbox; DELETE FROM ledger WHERE version < 3');
  });

  it('nothing is found: no reversal, no balance, no sum', async () => {
    const id = await eventIds(database);
    const reversal = await send(url, 'POST', '/v1/reversals', { of: id('alice', 2) });
    expect(reversal).toMatchObject({ status: 404, body: { code: 'change_not_found' } });
    expect(await send(url, 'GET', '/v1/accounts/alice/balance?version=1')).toMatchObject({ status: 500 });
    expect(await verified(database)).toMatchObject({ offenders: [{ accountId: 'alice' }] });
  });

  it('an event that is delivered again is dead-lettered', async () => {
    const channel = await (await broker.connect()).createChannel();
    const dead = async () => (await channel.checkQueue(broker.topology.deadLetters)).messageCount;
    expect(await dead()).toBe(0);
    channel.sendToQueue(broker.topology.ledgerQueue, encodeEvent(old), { contentType: EVENT_CONTENT_TYPE });
    await until('the worker refused it', async () => (await dead()) === 1);
  });
});

describe('truncated by hand', () => {
  it('the outbox loses changes, which verify names', async () => {
    await insertAccounts(database, 'alice');
    await applyDirectly(database.pool, 'alice', 10);
    await database.pool.query('TRUNCATE outbox');
    expect(await verified(database)).toMatchObject({ offendingAccounts: 1 });
  });

  it('idempotency keys let a retry take effect a second time', async () => {
    await insertAccounts(database, 'alice');
    const update = () =>
      send(url, 'POST', '/v1/balance-updates', { accountId: 'alice', amount: 5 }, { 'idempotency-key': 'once' });
    expect((await update()).body.balance).toBe(5);
    expect((await update()).body.balance).toBe(5);
    await database.pool.query('TRUNCATE idempotency_key');
    expect((await update()).body.balance).toBe(10);
  });

  it('holds and reversals are gone, and verify names them', async () => {
    const id = await eventIds(database);
    await insertAccounts(database, 'alice');
    await send(url, 'POST', '/v1/balance-updates', { accountId: 'alice', amount: 10 });
    await send(url, 'POST', '/v1/accounts/alice/holds', { holdId: 'h', amount: 2 });
    const reverse = () => send(url, 'POST', '/v1/reversals', { of: id('alice', 1), amount: 4 });
    expect(await reverse()).toMatchObject({ status: 200 });
    await database.pool.query('TRUNCATE hold, reversal');
    const { body } = await send(url, 'GET', '/v1/accounts/alice');
    expect(body).toMatchObject({ balance: 6, held: 2 });
    const capture = await send(url, 'POST', '/v1/accounts/alice/holds/h/capture', {});
    expect(capture).toMatchObject({ status: 404, body: { code: 'hold_not_found' } });
    const [found] = (await verified(database)).offenders;
    expect(found?.problems).toEqual(
      expect.arrayContaining([
        'hold h has entries but no row',
        `version 3 reverses ${id('alice', 1)}, but no reversal is recorded for it`,
      ]),
    );
  });

  it.each(['ledger', 'ledger_chain'])('%s is refused, to the owner of the tables too', async (table) => {
    await expect(database.pool.query(`TRUNCATE ${table}`)).rejects.toThrow(/append-only: TRUNCATE is refused/);
    await expect(database.pool.query(`SET session_replication_role = replica; TRUNCATE ${table}`)).rejects.toThrow(
      /append-only/,
    );
  });
});
