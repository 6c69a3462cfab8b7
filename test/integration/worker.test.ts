// The worker against duplicates, forgeries and an absent database; and the ledger against change.
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel } from 'amqplib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { CHANGE_COLUMNS, type Change, SELECT_CHANGE } from '../../src/shared/change.ts';
import { encodeEvent, encodeEventBatch } from '../../src/shared/events.ts';
import { declareTopology } from '../../src/shared/topology.ts';
import { doChangesWait } from '../../src/worker/ledger.ts';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  environmentOf,
  insertAccounts,
  insertChange,
  ledgerRows,
  makeChange,
  outboxChanges,
  recordDirectly,
  spawnProcess,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';

let database: Database;
let broker: Broker;
let channel: Channel;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
  channel = await (await broker.connect()).createChannel();
  await declareTopology(channel, broker.topology);
  await insertAccounts(database, 'a');
});
afterEach(cleanUp);

function publish(body: Buffer | string, times = 1): void {
  for (let count = 0; count < times; count += 1) {
    channel.sendToQueue(broker.topology.ledgerQueue, Buffer.from(body), { messageId: 'a:1:1' });
  }
}

/** The newest of account `a`. */
async function outboxChange(): Promise<Change> {
  return (await outboxChanges(database, 'a')).at(-1) as Change;
}

const deadLetters = async () => (await channel.checkQueue(broker.topology.deadLetters)).messageCount;

it('records one entry when a message is delivered many times, in one batch and after it', async () => {
  await applyDirectly(database.pool, 'a', 5);
  const body = encodeEvent(await outboxChange());
  publish(body, 20);
  const { consumer } = await startWorkerHere(database, broker);
  await until('all are settled', () => consumer.counts.recorded + consumer.counts.duplicates === 20);
  publish(body, 3);
  await until('the late ones too', () => consumer.counts.recorded + consumer.counts.duplicates === 23);
  expect(await ledgerRows(database)).toBe(1);
  expect(consumer.counts).toMatchObject({ forged: 0, malformed: 0 });
  expect(await deadLetters()).toBe(0);
});

it('counts an event that comes again as a duplicate after its outbox row was removed', async () => {
  await applyDirectly(database.pool, 'a', 5);
  const body = encodeEvent(await outboxChange());
  await startApiHere(database, broker);
  const { consumer } = await startWorkerHere(database, broker);
  await drained(database);
  const before = consumer.counts.duplicates;
  await database.pool.query('TRUNCATE outbox');
  publish(body);
  await until('it is a duplicate', () => consumer.counts.duplicates === before + 1);
  expect(await deadLetters()).toBe(0);
});

it('acknowledges at a stop what it has recorded, so that none of it comes again', async () => {
  const EACH = 100;
  for (let round = 1; round <= 5; round += 1) {
    for (let count = 0; count < EACH; count += 1) await applyDirectly(database.pool, 'a', 1);
    for (const change of (await outboxChanges(database, 'a')).slice(-EACH)) publish(encodeEvent(change));
    const blocker = await database.pool.connect();
    await blocker.query('BEGIN; LOCK TABLE ledger IN EXCLUSIVE MODE');
    const first = await startWorkerHere(database, broker);
    await until('it has a batch in flight', async () => {
      const { rows } = await database.pool.query(
        `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
      );
      return rows.length > 0;
    });
    const stopped = first.stop();
    await blocker.query('COMMIT');
    blocker.release();
    await stopped;
    expect(first.consumer.counts.recorded).toBeGreaterThan(0);
    const second = await startWorkerHere(database, broker);
    await until('all are there', async () => (await ledgerRows(database)) === round * EACH);
    await until('none are left', async () => {
      const { messageCount } = await channel.checkQueue(broker.topology.ledgerQueue);
      return messageCount === 0;
    });
    await second.stop();
    expect(first.consumer.counts.duplicates + second.consumer.counts.duplicates).toBe(0);
  }
});

it('dead-letters an event that matches no accepted change, and records its neighbours', async () => {
  await applyDirectly(database.pool, 'a', 5);
  const change = await outboxChange();
  publish(encodeEvent({ ...change, version: 2 })); // no such version
  publish(encodeEvent({ ...change, accountId: 'nobody' }));
  publish(encodeEvent(change));
  const { consumer } = await startWorkerHere(database, broker);
  await until('all are settled', () => consumer.counts.recorded === 1 && consumer.counts.forged === 2);
  await until('they are dead letters', async () => (await deadLetters()) === 2);
  expect(await ledgerRows(database)).toBe(1);
});

const HOLD = {
  holdId: 'h1',
  holdStatus: 'active',
  holdRemaining: 5,
  holdExpiresAt: new Date('2026-12-01T00:00:00.000Z'),
} as const;
const NO_HOLD = { holdId: null, holdStatus: null, holdRemaining: null, holdExpiresAt: null };
const LIMITS = { overdraftLimit: 7, maxBalance: 70, status: 'open' } as const;
const NO_LIMITS = { overdraftLimit: null, maxBalance: null, status: null };
/** Every column is filled, unlike in any real change. */
const FULL = {
  ...makeChange({ accountId: 'a', version: 2, type: 'hold.placed', amount: 0, heldChange: 5, balance: 5, held: 5 }),
  ...{ reference: 'order 1', actor: 'shop', metadata: '{"cart":"1"}', transferId: 'a:1:x', reverses: 'a:1:y' },
  ...HOLD,
  ...LIMITS,
};
/**
 * How a forger alters FULL and a plain credit: one column alone, wherever an event can say that.
 */
const ALTERED: Record<keyof Change, { full: Partial<Change>[]; credit?: Partial<Change>[] }> = {
  accountId: { full: [{ accountId: 'b' }, { accountId: 'nobody' }] },
  version: { full: [{ version: 1 }, { version: 3 }] },
  epoch: { full: [{ epoch: 2 }] },
  previousEpoch: { full: [{ previousEpoch: 2 }, { previousEpoch: null }] },
  type: { full: [{ type: 'hold.changed' }], credit: [{ type: 'balance.debited' }, { type: 'account.changed' }] },
  asset: { full: [{ asset: 'EUR/2' }] },
  amount: { full: [{ amount: 1 }], credit: [{ amount: 6 }] },
  heldChange: { full: [{ heldChange: 4 }] },
  balance: { full: [{ balance: 6 }] },
  held: { full: [{ held: 6 }] },
  createdAt: { full: [{ createdAt: new Date(0) }] },
  reference: { full: [{ reference: 'other' }, { reference: null }], credit: [{ reference: 'other' }] },
  actor: { full: [{ actor: 'other' }, { actor: null }], credit: [{ actor: 'other' }] },
  metadata: { full: [{ metadata: '{"cart":"2"}' }, { metadata: null }], credit: [{ metadata: '{}' }] },
  transferId: { full: [{ transferId: 'a:1:z' }, { transferId: null }], credit: [{ transferId: 'a:1:x' }] },
  reverses: { full: [{ reverses: 'a:1:z' }, { reverses: null }], credit: [{ reverses: 'a:1:y' }] },
  holdId: { full: [{ holdId: 'h2' }, NO_HOLD], credit: [HOLD] },
  holdStatus: { full: [{ holdStatus: 'expired' }] },
  holdRemaining: { full: [{ holdRemaining: 4 }] },
  holdExpiresAt: { full: [{ holdExpiresAt: new Date(0) }, { holdExpiresAt: null }] },
  overdraftLimit: { full: [{ overdraftLimit: 8 }, NO_LIMITS], credit: [LIMITS] },
  maxBalance: { full: [{ maxBalance: 71 }, { maxBalance: null }] },
  status: { full: [{ status: 'frozen' }] },
};

it.each(CHANGE_COLUMNS.map(([column, , name]) => [column, name] as const))(
  'dead-letters an event whose %s was altered, before and after the true one',
  async (_, name) => {
    await insertAccounts(database, 'b');
    await applyDirectly(database.pool, 'b', 5, 2);
    await applyDirectly(database.pool, 'a', 5);
    const credit = await outboxChange();
    await insertChange(database, 'outbox', FULL);
    const forged = [
      ...ALTERED[name].full.map((altered) => ({ ...FULL, ...altered })),
      ...(ALTERED[name].credit ?? []).map((altered) => ({ ...credit, ...altered })),
    ].map(encodeEvent);
    const publishForged = () => forged.forEach((event) => void publish(event));
    publishForged();
    publish(encodeEvent(credit));
    publish(encodeEvent(FULL));
    publishForged();
    const { consumer } = await startWorkerHere(database, broker);
    const settled = () => consumer.counts.recorded === 2 && consumer.counts.forged === 2 * forged.length;
    await until('all are settled', settled);
    publishForged();
    await until('the later ones too', () => consumer.counts.forged === 3 * forged.length);
    await until('they are dead letters', async () => (await deadLetters()) === 3 * forged.length);
    const { rows } = await database.pool.query(`SELECT ${SELECT_CHANGE} FROM ledger ORDER BY version`);
    const { traceparent, ...full } = FULL;
    expect(rows).toEqual([credit, full]);
  },
);

it('dead-letters what is no event', async () => {
  await applyDirectly(database.pool, 'a', 5);
  const good = JSON.parse(encodeEvent(await outboxChange()).toString());
  const bodies = [
    '',
    'null',
    '{',
    '[]',
    '\u0000\uffff',
    JSON.stringify({ ...good, specversion: '0.3' }),
    JSON.stringify({ ...good, subject: 'b' }),
    JSON.stringify({ ...good, id: good.id.replace('a:1:', 'a:9:') }),
    JSON.stringify({ ...good, id: 'a:1' }),
    JSON.stringify({ ...good, id: `${good.id}0` }),
    JSON.stringify({ ...good, extra: 1 }),
    JSON.stringify({ ...good, type: 'balance.changed' }),
    JSON.stringify({ ...good, data: { ...good.data, extra: 1 } }),
    JSON.stringify({ ...good, data: { ...good.data, epoch: undefined } }),
    JSON.stringify({ ...good, data: { ...good.data, held: -1 } }),
    JSON.stringify({ ...good, data: { ...good.data, asset: 'euro' } }),
    JSON.stringify({ ...good, data: { ...good.data, hold: { id: 'h1' } } }),
    JSON.stringify({ ...good, data: { ...good.data, version: 1.5 } }),
    JSON.stringify({ ...good, data: { ...good.data, amount: '5' } }),
    JSON.stringify({ ...good, data: { ...good.data, reference: 'a\u0000b' } }),
    JSON.stringify({ ...good, time: 'yesterday' }),
    JSON.stringify({ ...good, time: '0000-01-01T00:00:00.000Z' }), // PostgreSQL knows no such year
    JSON.stringify([]),
    JSON.stringify([good, null]),
  ];
  for (const body of bodies) publish(body);
  const { consumer } = await startWorkerHere(database, broker);
  await until('all are refused', () => consumer.counts.malformed === bodies.length);
  await until('they are dead letters', async () => (await deadLetters()) === bodies.length);
  expect(await ledgerRows(database)).toBe(0);
});

it('refuses alone what only the database finds out to be no value', async () => {
  await applyDirectly(database.pool, 'a', 5);
  const change = await outboxChange();
  // A trigger is in the place of a rule that the contract does not know.
  await database.pool.query(`
    CREATE FUNCTION refuse_six() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN IF NEW.amount = 6 THEN RAISE EXCEPTION 'not six' USING ERRCODE = '22000'; END IF; RETURN NEW; END $$;
    CREATE TRIGGER refuse_six BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION refuse_six();`);
  await applyDirectly(database.pool, 'a', 6);
  publish(encodeEvent(await outboxChange()));
  publish(encodeEvent(change));
  const { consumer } = await startWorkerHere(database, broker);
  await until('both are settled', () => consumer.counts.recorded === 1 && consumer.counts.malformed === 1);
  await until('one is a dead letter', async () => (await deadLetters()) === 1);
});

it('records the true events of a batch and dead-letters it when one is forged', async () => {
  await applyDirectly(database.pool, 'a', 5);
  const change = { ...(await outboxChange()), traceparent: null };
  publish(encodeEventBatch([change, { ...change, version: 2 }]));
  const { consumer } = await startWorkerHere(database, broker);
  await until('it is settled', () => consumer.counts.recorded === 1 && consumer.counts.forged === 1);
  await until('it is a dead letter', async () => (await deadLetters()) === 1);
});

it('waits for an absent database with the messages in hand, and records them when it is back', async () => {
  await applyDirectly(database.pool, 'a', 5);
  const body = encodeEvent(await outboxChange());
  const { consumer } = await startWorkerHere(database, broker);
  await until('it consumes', async () => (await channel.checkQueue(broker.topology.ledgerQueue)).consumerCount === 1);
  await database.pool.query('ALTER TABLE ledger RENAME TO ledger_away');
  publish(body);
  await until('it tried in vain to record it', () => consumer.counts.retries > 0);
  await database.pool.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'highload-balance worker' AND datname = current_database()`,
  );
  expect(await channel.checkQueue(broker.topology.ledgerQueue)).toMatchObject({ messageCount: 0, consumerCount: 1 });
  await database.pool.query('ALTER TABLE ledger_away RENAME TO ledger');
  await until('it is recorded', () => consumer.counts.recorded === 1);
  expect(await deadLetters()).toBe(0);
});

it('starts consuming again after its queue was deleted under it', async () => {
  await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  await applyDirectly(database.pool, 'a', 1);
  await drained(database);
  await channel.deleteQueue(broker.topology.ledgerQueue);
  await applyDirectly(database.pool, 'a', 1);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 3, offendingAccounts: 0 });
});

// RabbitMQ 3.10 does not report it then, and keeps for it what it never sends.
it('starts consuming again after its queue was deleted and declared again at once', async () => {
  await startApiHere(database, broker);
  const { consumer } = await startWorkerHere(database, broker);
  await applyDirectly(database.pool, 'a', 1);
  await drained(database);
  await channel.deleteQueue(broker.topology.ledgerQueue);
  await declareTopology(channel, broker.topology);
  await applyDirectly(database.pool, 'a', 1);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 3, offendingAccounts: 0 });
  expect(consumer.counts).toMatchObject({ forged: 0, malformed: 0 });
});

it('stays the consumer that it is while nothing waits for it', async () => {
  await startApiHere(database, broker);
  const { output } = await spawnProcess('worker', environmentOf(database, broker, { LOG_LEVEL: 'info' }));
  await applyDirectly(database.pool, 'a', 1);
  await drained(database);
  await delay(6500);
  expect(output()).not.toContain('consuming the ledger queue again');
});

// With two workers, one of which RabbitMQ 3.10 never sends anything, the newest message of 100
// events may have come to the other.
it('sees a change that is older than the newest 500', async () => {
  await applyDirectly(database.pool, 'a', 1, 600);
  expect(await doChangesWait(database.pool)).toBe(true);
  await recordDirectly(database, 'a', 0, 99);
  await recordDirectly(database, 'a', 101, 600);
  expect(await doChangesWait(database.pool)).toBe(true);
  await recordDirectly(database, 'a', 100, 100);
  expect(await doChangesWait(database.pool)).toBe(false);
});

it('leaves the order and the sum of the ledger right with two workers', async () => {
  await startApiHere(database, broker);
  const workers = [await startWorkerHere(database, broker), await startWorkerHere(database, broker)];
  await insertAccounts(database, 'b', 'c');
  for (let count = 0; count < 300; count += 1) await applyDirectly(database.pool, 'abc'.charAt(count % 3), 1);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 303, offendingAccounts: 0 });
  expect(workers.map((worker) => worker.consumer.counts.forged)).toEqual([0, 0]);
});

it.each([
  'UPDATE ledger SET amount = 6',
  'UPDATE ledger SET amount = 6 WHERE false',
  'DELETE FROM ledger',
  'TRUNCATE ledger',
  `INSERT INTO ledger SELECT * FROM ledger ON CONFLICT (account_id, version) DO UPDATE SET amount = 7`,
  `SET session_replication_role = replica; DELETE FROM ledger`,
])('the ledger refuses: %s', async (statement) => {
  await applyDirectly(database.pool, 'a', 5);
  publish(encodeEvent(await outboxChange()));
  await startWorkerHere(database, broker);
  await until('it is recorded', async () => (await ledgerRows(database)) === 1);
  await expect(database.pool.query(statement)).rejects.toThrow(/append-only/);
  const { rows } = await database.pool.query('SELECT amount FROM ledger');
  expect(rows).toEqual([{ amount: 5 }]);
});
