// Events of a history that the database lost, in the ledger queue: never recorded, never taken for
// forgeries; and what somebody forged is not taken for them.
import type { Channel } from 'amqplib';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { CHANGE_COLUMN_NAMES, CHANGE_COLUMNS, type Change } from '../../src/shared/change.ts';
import { type Client, openClient, openPool, type Pool } from '../../src/shared/database.ts';
import { encodeEvent, encodeEventBatch } from '../../src/shared/events.ts';
import { declareTopology } from '../../src/shared/topology.ts';
import { recordChanges } from '../../src/worker/ledger.ts';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  environmentOf,
  insertAccounts,
  ledgerRows,
  makeChange,
  onCleanUp,
  outboxChanges,
  send,
  spawnProcess,
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
});
afterEach(cleanUp);

const toWorker = (changes: readonly Change[]) => {
  for (const change of changes) channel.sendToQueue(broker.topology.ledgerQueue, encodeEvent(change));
};
const deadLetters = async () => (await channel.checkQueue(broker.topology.deadLetters)).messageCount;

/**
 * What a restore of the present state would be: a database of its own, which does not have what
 * comes after it.
 */
async function restored({ url, pool }: Database): Promise<Database> {
  const name = new URL(url).pathname.slice(1);
  const admin = await openClient(new URL('/postgres', url).href, 'test admin');
  onCleanUp(() => admin.end());
  await admin.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`);
  await until('nobody is connected', async () => {
    const { rows } = await admin.query(`SELECT FROM pg_stat_activity WHERE datname = '${name}'`);
    return rows.length === 0;
  });
  await admin.query(`CREATE DATABASE ${name}_restored TEMPLATE ${name}`);
  onCleanUp(() => admin.query(`DROP DATABASE ${name}_restored WITH (FORCE)`));
  const copy = new URL(`/${name}_restored`, url).href;
  const copyPool = openPool(copy, 'test', 4, { access: 'any server' });
  onCleanUp(() => copyPool.end());
  await pool.query('SELECT'); // connected again
  return { url: copy, pool: copyPool };
}

it('drops them, counts them, says so once a batch, and dead-letters what no history can have said', async () => {
  await insertAccounts(database, 'a');
  await applyDirectly(database.pool, 'a', 5);
  const present = await restored(database);
  await applyDirectly(database.pool, 'a', 1, 8);
  await insertAccounts(database, 'lost');
  const shared = (await outboxChanges(database, 'a')).slice(0, 2);
  const lost = [...(await outboxChanges(database, 'a')).slice(2), ...(await outboxChanges(database, 'lost'))];
  expect(lost).toHaveLength(9);

  // The worker is the first who asks for the epoch.
  const worker = await spawnProcess('worker', environmentOf(present, broker, { HEALTH_PORT: '0' }));
  const counts = async () => (await send(worker.url(), 'GET', '/readyz')).body.counts;
  channel.sendToQueue(
    broker.topology.ledgerQueue,
    encodeEventBatch([...shared, ...lost].map((change) => ({ ...change, traceparent: null }))),
  );
  await until('all are settled', async () => {
    const { recorded, superseded } = await counts();
    return recorded === 2 && superseded === 9;
  });

  await applyDirectly(present.pool, 'a', 7);
  const [newest] = (await outboxChanges(present, 'a')).slice(-1) as [Change];
  const [opening, first] = shared as [Change, Change];
  toWorker([newest, ...lost]);
  await until('they are superseded again', async () => (await counts()).superseded === 18);
  const forged = [
    { ...first, amount: 6 }, // another change under an epoch that we share
    { ...first, epoch: newest.epoch },
    { ...newest, amount: 70 },
    { ...newest, version: 3 },
    { ...newest, version: 3, epoch: newest.epoch + 1 }, // of the future
    { ...newest, version: 3, epoch: opening.epoch - 1 }, // before our history began
    makeChange({ accountId: 'nobody', version: 0, epoch: newest.epoch }),
  ];
  toWorker(forged);
  await until('the forgeries are dead letters', async () => (await deadLetters()) === forged.length);
  expect(await counts()).toMatchObject({ recorded: 3, superseded: 18, forged: forged.length, malformed: 0 });
  expect(await ledgerRows(present)).toBe(3);
  const lines = worker.lines().filter(({ msg }) => msg.includes('a history that the database has lost'));
  expect(lines.length).toBeGreaterThanOrEqual(1);
  expect(lines.length).toBeLessThanOrEqual(1 + lost.length);
  expect(lines[0]).toMatchObject({
    level: 'warn',
    events: 9,
    first: lost.slice(0, 5).map(({ accountId, version, epoch }) => ({ accountId, version, epoch })),
  });
});

it('dead-letters a message for one forgery in it, and records the true events beside it', async () => {
  await insertAccounts(database, 'a');
  const present = await restored(database);
  await applyDirectly(database.pool, 'a', 1);
  await applyDirectly(present.pool, 'a', 2);
  const [opening, ours] = (await outboxChanges(present, 'a')) as [Change, Change];
  const [, lost] = (await outboxChanges(database, 'a')) as [Change, Change];
  const body = [opening, lost, { ...ours, amount: 3 }, ours].map((change) => ({ ...change, traceparent: null }));
  channel.sendToQueue(broker.topology.ledgerQueue, encodeEventBatch(body));
  const { consumer } = await startWorkerHere(present, broker);
  await until('it is dead', async () => (await deadLetters()) === 1);
  expect(consumer.counts).toMatchObject({ recorded: 2, superseded: 1, forged: 1 });
});

/**
 * A database as it continues, is restarted, or continues from an older state of any line: restored,
 * failed over, or set back.
 */
interface Line {
  epochs: number[];
  changes: Change[];
}
type Step = { kind: 'change'; account: number } | { kind: 'restart' } | { kind: 'cut'; line: number; share: number };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('change' as const), account: fc.nat(2) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('cut' as const),
        line: fc.nat(20),
        share: fc.double({ min: 0, max: 1, noNaN: true }),
      }),
    },
  ),
  { maxLength: 40 },
);

/**
 * A failover to a standby that lacked a change, and back to the server that has it: ours has a
 * lower epoch than the lost one.
 */
const BACK_TO_THE_OLD_LINE: Step[] = [
  { kind: 'change', account: 0 },
  { kind: 'cut', line: 0, share: 0 },
  { kind: 'change', account: 0 },
  { kind: 'cut', line: 0, share: 1 },
];

/**
 * Every line that there was, the present one last. A line is what its states are the beginnings of.
 */
function linesOf(all: readonly Step[], oldest: number): Line[] {
  let clock = oldest;
  /** A state of a line: how many of its changes and epochs there were. */
  const lines: (Line & { states: [changes: number, epochs: number][] })[] = [
    { epochs: [clock], changes: [], states: [[0, 1]] },
  ];
  for (const step of all) {
    const line = lines.at(-1) as (typeof lines)[number];
    if (step.kind === 'change') {
      const accountId = 'abc'.charAt(step.account);
      const before = line.changes.filter((change) => change.accountId === accountId).at(-1);
      const version = (before?.version ?? -1) + 1;
      const epoch = line.epochs.at(-1) as number;
      // What it says beside its numbers distinguishes the lines.
      line.changes.push(
        makeChange({
          accountId,
          version,
          epoch,
          previousEpoch: before?.epoch ?? null,
          reference: `line ${lines.length}`,
        }),
      );
    } else {
      clock += 10;
      if (step.kind === 'restart') line.epochs.push(clock);
      else {
        const from = lines[step.line % lines.length] as (typeof lines)[number];
        const [changes, epochs] = from.states[Math.floor(step.share * (from.states.length - 1))] as [number, number];
        lines.push({
          epochs: [...from.epochs.slice(0, epochs), clock],
          changes: from.changes.slice(0, changes),
          states: [],
        });
      }
    }
    const last = lines.at(-1) as (typeof lines)[number];
    last.states.push([last.changes.length, last.epochs.length]);
  }
  return lines;
}

it('takes every event of every lost line for one, however the database was set back, and no forgery', async () => {
  const client: Client = await openClient(database.url, 'test');
  onCleanUp(() => client.end());
  await client.query('SELECT current_epoch()');
  await fc.assert(
    fc.asyncProperty(steps, async (all) => {
      const lines = linesOf(all, 1000);
      const ours = lines.at(-1) as Line;
      const known = new Set(ours.changes);
      const lost = [...new Set(lines.flatMap(({ changes }) => changes))].filter((change) => !known.has(change));
      const forged = ours.changes.flatMap((change) => [
        { ...change, asset: 'FORGED' },
        ...ours.epochs.filter((epoch) => epoch > change.epoch).map((epoch) => ({ ...change, epoch })),
      ]);
      await client.query('BEGIN');
      try {
        await client.query('INSERT INTO epoch SELECT unnest($1::bigint[]), $2, now(), $2, 0', [ours.epochs, 'past']);
        const half = Math.floor(ours.changes.length / 2);
        for (const [index, change] of ours.changes.entries()) {
          await client.query(
            `INSERT INTO ${index < half ? 'ledger' : 'outbox'} (${CHANGE_COLUMN_NAMES})
             VALUES (${CHANGE_COLUMNS.map((_, column) => `$${column + 1}`).join(', ')})`,
            CHANGE_COLUMNS.map(([, , name]) => change[name]),
          );
        }
        const delivered = [...lost, ...forged, ...ours.changes, ...lost];
        const verdicts = await recordChanges(client as unknown as Pool, delivered);
        expect(verdicts).toEqual([
          ...lost.map(() => 'superseded'),
          ...forged.map(() => 'forged'),
          ...ours.changes.map((_, index) => (index < half ? 'duplicate' : 'recorded')),
          ...lost.map(() => 'superseded'),
        ]);
      } finally {
        await client.query('ROLLBACK');
      }
    }),
    { numRuns: 150, examples: [[BACK_TO_THE_OLD_LINE]] },
  );
});
