// npm run dead-letters against the real queue: what it shows, what it moves, and that it loses
// nothing.
import type { Channel, GetMessage } from 'amqplib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { describeDeadLetter } from '../../src/cli/dead-letter.ts';
import { openDeadLetters } from '../../src/cli/dead-letter-queue.ts';
import { takeMessages } from '../../src/cli/messages.ts';
import { closeConnection, connect } from '../../src/shared/broker.ts';
import type { Change } from '../../src/shared/change.ts';
import { encodeEvent } from '../../src/shared/events.ts';
import { declareTopology } from '../../src/shared/topology.ts';
import { startCommand } from '../support/commands.ts';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  insertAccounts,
  ledgerRows,
  makeChange,
  outboxChanges,
  recordDirectly,
  startWorkerHere,
  subscribe,
  until,
} from '../support/harness.ts';

/** More returns than the ledger queue's delivery limit. */
const RETURNS = 1001;

let database: Database;
let broker: Broker;
let channel: Channel;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
  channel = await (await broker.connect()).createChannel();
  await declareTopology(channel, broker.topology);
  await insertAccounts(database, 'a');
  await recordDirectly(database, 'a', 0, 0); // no relay runs here to publish it
});
afterEach(cleanUp);

/** It needs no database. */
const start = (args: readonly string[], environment: Record<string, string> = {}) =>
  startCommand(['dead-letters', ...args], { AMQP_URL: broker.url, AMQP_NAMESPACE: broker.namespace, ...environment });

const run = (...call: Parameters<typeof start>) => start(...call).whenEnded;
const runJson = async (...args: string[]) => JSON.parse((await run([...args, '--json'])).out);

const messagesIn = async (queue: string) => (await channel.checkQueue(queue)).messageCount;
const deadLetters = () => messagesIn(broker.topology.deadLetters);

const forgery = (version = 9) => encodeEvent(makeChange({ accountId: 'a', version, amount: 5, balance: 5 }));

async function acceptedEvent(): Promise<Buffer> {
  await applyDirectly(database.pool, 'a', 5);
  return encodeEvent((await outboxChanges(database, 'a')).at(-1) as Change);
}

function publish(content: Buffer): void {
  channel.sendToQueue(broker.topology.ledgerQueue, content, { messageId: 'a:1:1' });
}

/** A good event, a forged one and something else, each dead as it would be in earnest. */
async function threeKinds(): Promise<void> {
  const { ledgerQueue } = broker.topology;
  publish(await acceptedEvent());
  await until('it arrived', async () => (await messagesIn(ledgerQueue)) === 1);
  for (let count = 0; count < RETURNS; count += 1) {
    const message = (await channel.get(ledgerQueue)) as GetMessage;
    channel.reject(message, true); // not nack: from RabbitMQ 4.3 on that is no failed delivery
  }
  await until('it is dead', async () => (await deadLetters()) === 1);
  const worker = await startWorkerHere(database, broker);
  publish(forgery());
  await until('it is dead', async () => (await deadLetters()) === 2);
  publish(Buffer.from('{"no": "event", \u001b[2J'));
  await until('all are dead', async () => (await deadLetters()) === 3);
  await worker.stop();
}

/** Puts letters there without a worker's refusal. */
async function plant(letters: number): Promise<void> {
  for (let version = 1; version <= letters; version += 1) {
    channel.publish(broker.topology.deadLetters, '', forgery(version));
  }
  await until('they are there', async () => (await deadLetters()) === letters);
}

it('lists what is dead and why, without taking it, as often as one likes', async () => {
  await threeKinds();
  const look = await runJson('list');
  expect(look).toMatchObject({ queue: broker.topology.deadLetters, messages: 3, complete: true });
  expect(look.letters).toEqual([
    {
      id: expect.stringMatching(/^[0-9a-f]{12}$/),
      reason: 'delivery-limit',
      deadAt: expect.stringMatching(/^\d{4}-.*Z$/),
      events: [{ accountId: 'a', version: 1 }],
      eventCount: 1,
      bytes: expect.any(Number),
      excerpt: expect.stringContaining('"specversion":"1.0"'),
    },
    expect.objectContaining({ reason: 'forged', events: [{ accountId: 'a', version: 9 }] }),
    expect.objectContaining({ reason: 'malformed', events: [], eventCount: 0, excerpt: '{"no": "event", \\u{1b}[2J' }),
  ]);
  expect(Math.abs(Date.parse(look.letters[0].deadAt) - Date.now())).toBeLessThan(60_000);

  const text = await run(['list', '--reason', 'malformed']);
  expect(text.out).toMatch(/^[0-9a-f]{12} {2}malformed .*\n.*: 3 dead letters, 1 shown\n$/);
  expect(text).toMatchObject({ code: 0, err: '' });
  expect((await runJson('list', '--limit', '2')).letters).toHaveLength(2);

  for (let looks = 0; looks < 30; looks += 1) {
    const connection = await connect(broker.url, 'test');
    const queue = await openDeadLetters(connection, broker.topology);
    expect((await queue.look({ ids: [], reasons: [] }, 100, Number.POSITIVE_INFINITY)).letters).toHaveLength(3);
    await closeConnection(connection);
    await until('they are back', async () => (await deadLetters()) === 3);
  }
});

it('lists, discards and puts back although what is noted of a death is no time', async () => {
  const notes = [{ time: 5 }, { time: { '!': 'timestamp', value: 9e15 } }, 5].map((death) => ({ 'x-death': [death] }));
  for (const [index, headers] of notes.entries()) {
    channel.publish(broker.topology.deadLetters, '', forgery(index + 1), { headers });
  }
  await until('they are there', async () => (await deadLetters()) === notes.length);
  const { letters, complete } = await runJson('list');
  expect(complete).toBe(true);
  expect(letters.map(({ deadAt }: { deadAt: unknown }) => deadAt)).toEqual([null, null, null]);
  expect(await run(['discard', '--all', '--yes'])).toMatchObject({ code: 0 });
  expect(await deadLetters()).toBe(0);
});

it('says that it is not all where another reader holds some', async () => {
  await plant(3);
  const other = await (await broker.connect()).createChannel();
  let held = 0;
  await other.consume(broker.topology.deadLetters, () => (held += 1));
  await until('it holds them', () => held === 3);
  expect(await run(['list'])).toMatchObject({ code: 1, out: expect.stringContaining('0 dead letters; not all') });
  expect(await run(['discard', '--all', '--yes'])).toMatchObject({ code: 1, out: expect.stringContaining('not all') });
  await other.close();
  await until('they are back', async () => (await deadLetters()) === 3);
  expect(await runJson('list')).toMatchObject({ messages: 3, complete: true });
});

it('puts back what was only returned too often, which is recorded, and leaves the rest', async () => {
  await threeKinds();
  const { consumer } = await startWorkerHere(database, broker);
  const { code, out } = await run(['put-back', '--reason', 'delivery-limit']);
  expect(out).toBe(`${broker.topology.deadLetters}: put back 1 dead letters (1 delivery-limit)\n`);
  expect(code).toBe(0);
  await until('it is recorded', () => consumer.counts.recorded === 1);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 2, offendingAccounts: 0 });
  await until('the others are back', async () => (await deadLetters()) === 2);
});

it('puts back forgeries as well, says that they return, shows them to no subscriber, and they do return', async () => {
  await threeKinds();
  const received = await subscribe(broker);
  const { consumer } = await startWorkerHere(database, broker);
  const { code, out } = await run(['put-back', '--all']);
  expect(out).toContain('put back 3 dead letters (1 delivery-limit, 1 forged, 1 malformed)');
  expect(out).toContain('refuses forged and malformed letters again');
  expect(code).toBe(0);
  await until('they were judged again', () => consumer.counts.forged === 1 && consumer.counts.malformed === 1);
  await until('they are dead again', async () => (await deadLetters()) === 2);
  const reasons = (await runJson('list')).letters.map((letter: { reason: string }) => letter.reason);
  expect(reasons.sort()).toEqual(['forged', 'malformed']);
  expect(await ledgerRows(database)).toBe(2);
  expect(received).toEqual([]);
});

it('discards only what it is asked to, and only with --yes', async () => {
  await threeKinds();
  const { letters } = await runJson('list', '--reason', 'forged');
  const which = ['--id', letters[0].id];
  expect(await run(['discard', ...which])).toMatchObject({
    code: 2,
    out: '',
    err: expect.stringMatching(/--yes/),
  });
  await until('all are there', async () => (await deadLetters()) === 3);
  expect(await runJson('discard', ...which, '--yes')).toMatchObject({
    command: 'discard',
    removed: 1,
    byReason: { forged: 1 },
    missing: [],
    complete: true,
  });
  await until('the others are back', async () => (await deadLetters()) === 2);
  const again = await run(['discard', ...which, '--yes']);
  expect(again).toMatchObject({
    code: 1,
    out: expect.stringContaining(`no dead letter has the id ${letters[0].id}`),
  });
  expect((await run(['discard', '--all', '--yes'])).code).toBe(0);
  expect(await deadLetters()).toBe(0);
});

it.each([
  ['all', ['--all'], 700],
  ['picked', ['--reason', 'unknown'], 100],
])('removes %s for good: none comes back when its connection ends', async (_, which, letters) => {
  await plant(letters);
  expect(await runJson('discard', ...which, '--yes')).toMatchObject({ removed: letters, complete: true });
  const longEnough = performance.now() + 1500;
  await until('a lost acknowledgement would show', async () => {
    expect(await deadLetters()).toBe(0);
    return performance.now() > longEnough;
  });
});

it('loses nothing when it is killed, however far it has got', async () => {
  const letters = 2000;
  await plant(letters);
  const ids = new Set<string>();
  for (const share of [0.2, 0.6]) {
    const { child, whenEnded } = start(['put-back', '--all']);
    const enough = letters * share;
    await until('it has put back a part', async () => (await messagesIn(broker.topology.ledgerQueue)) >= enough);
    child.kill('SIGKILL');
    await whenEnded;
  }
  await until('none is left', async () => {
    await run(['put-back', '--all']);
    return (await deadLetters()) === 0;
  });
  for (;;) {
    const message = await channel.get(broker.topology.ledgerQueue, { noAck: true });
    if (!message) break;
    ids.add(JSON.parse(message.content.toString()).id);
  }
  expect(ids.size).toBe(letters);
});

it('stops in time and says that it is not done', async () => {
  /** As many as this machine cannot put back in a second. */
  async function runOutOfTime(letters: number): Promise<{ code: number | null; out: string; letters: number }> {
    await plant(letters);
    const { code, out } = await run(['put-back', '--all', '--seconds', '1']);
    if (code !== 0 || letters > 1_000_000) return { code, out, letters };
    await channel.purgeQueue(broker.topology.ledgerQueue);
    return runOutOfTime(4 * letters);
  }
  const startedAt = performance.now();
  const { code, out, letters } = await runOutOfTime(20_000);
  expect(performance.now() - startedAt).toBeLessThan(30_000);
  expect(out).toContain('not all of them: there was no time');
  expect(code).toBe(1);
  const putBack = Number(/put back (\d+)/.exec(out)?.[1]);
  expect(putBack).toBeGreaterThan(0);
  await until('the rest is back', async () => (await deadLetters()) === letters - putBack);
  expect(await messagesIn(broker.topology.ledgerQueue)).toBe(putBack);
});

it('distinguishes what waited too long, what was refused, and what died elsewhere', async () => {
  const { ledgerQueue, deadLetters: exchange } = broker.topology;
  channel.sendToQueue(ledgerQueue, await acceptedEvent(), { expiration: 1 });
  await until('it expired', async () => (await deadLetters()) === 1);
  const theirs = `${exchange}-theirs`;
  const options = { exclusive: true, deadLetterExchange: exchange };
  await channel.assertQueue(theirs, { ...options, maxLength: 1, arguments: { 'x-overflow': 'drop-head' } });
  for (let count = 0; count < 2; count += 1) channel.sendToQueue(theirs, forgery());
  await until('one was too many', async () => (await deadLetters()) === 2);
  channel.reject((await channel.get(theirs)) as GetMessage, false);
  await until('the other was refused', async () => (await deadLetters()) === 3);
  channel.publish(exchange, '', forgery());
  await until('one was put there', async () => (await deadLetters()) === 4);
  const { letters } = await runJson('list');
  expect(letters.map(({ reason }: { reason: string }) => reason)).toEqual([
    ...['expired', 'unknown', 'unknown', 'unknown'],
  ]);
  expect((await run(['put-back', '--reason', 'expired'])).out).toContain('put back 1 dead letters (1 expired)\n');
  const { consumer } = await startWorkerHere(database, broker);
  await until('it is recorded', () => consumer.counts.recorded === 1);
});

it('says of what RabbitMQ calls maxlen that the queue was too short for it', () => {
  const death = { queue: 'q', reason: 'maxlen', time: { '!': 'timestamp', value: 1_795_463_036 } };
  const letter = { content: forgery(), properties: { headers: { 'x-death': [death] } } as never };
  expect(describeDeadLetter(letter, 'q')).toMatchObject({ reason: 'maxlen', deadAt: '2026-11-23T19:43:56.000Z' });
  expect(describeDeadLetter(letter, 'another')).toMatchObject({ reason: 'unknown' });
});

it('goes through letters that are larger than its memory, a few at a time, and leaves each where it is to be', async () => {
  const letters = 10;
  const large = Buffer.alloc(9_000_000, ' ');
  for (let count = 0; count < letters; count += 1) {
    large.write(`[{},${count}`);
    channel.publish(broker.topology.deadLetters, '', Buffer.from(large));
  }
  await until('they are there', async () => (await deadLetters()) === letters);
  const pages = await takeMessages(channel, broker.topology.deadLetters, letters, 5000);
  expect(pages).toHaveLength(7); // of 64 MiB
  for (const message of pages) channel.nack(message, false, true);
  await until('they are back', async () => (await deadLetters()) === letters);

  const look = await runJson('list');
  expect(look).toMatchObject({ messages: letters, complete: true });
  expect(new Set(look.letters.map(({ id }: { id: string }) => id)).size).toBe(letters);
  expect(look.letters[0]).toMatchObject({ bytes: large.length, reason: 'unknown', eventCount: 0 });
  await until('they are back', async () => (await deadLetters()) === letters);

  const { consumer } = await startWorkerHere(database, broker);
  expect((await run(['put-back', '--all'])).out).toContain(`put back ${letters} dead letters`);
  await until('they are refused again', async () => consumer.counts.malformed === letters);
  await until('they are dead again', async () => (await deadLetters()) === letters);
  expect(await runJson('list', '--reason', 'malformed')).toMatchObject({ messages: letters, complete: true });
  await until('they are back', async () => (await deadLetters()) === letters);
  expect(await runJson('discard', '--all', '--yes')).toMatchObject({ removed: letters, complete: true });
  expect(await deadLetters()).toBe(0);
});

it('puts nothing back where there is no ledger queue', async () => {
  await plant(3);
  await channel.deleteQueue(broker.topology.ledgerQueue);
  const { code, err } = await run(['put-back', '--all']);
  expect(err).toMatch(/There is no queue .*\.ledger\. Start the worker/);
  expect(code).toBe(1);
  await until('they are back', async () => (await deadLetters()) === 3);
});

it('explains itself, and says in a sentence what is wrong with the broker', async () => {
  const help = await run(['--help']);
  expect(help).toMatchObject({ code: 0, err: '', out: expect.stringContaining('exit code: 0 done') });
  expect(await run(['purge'])).toMatchObject({ code: 2, out: '', err: expect.stringContaining('--help') });
  for (const [environment, sentence] of [
    [
      { AMQP_URL: 'amqp://user:secret@127.0.0.1:1' },
      /^RabbitMQ at amqp:\/\/user:\*\*\*@127.0.0.1:1 cannot be used: .*ECONNREFUSED/,
    ],
    [{ AMQP_URL: 'http://host' }, /^AMQP_URL must be an AMQP URL/],
    [{ AMQP_NAMESPACE: 'nobody' }, /There is no queue nobody\.dead\. The worker creates it/],
  ] as const) {
    const { code, out, err } = await run(['list'], environment);
    expect(err).toMatch(sentence);
    expect(err).not.toContain('secret');
    expect(err.trim().split('\n')).toHaveLength(1); // no stack
    expect([code, out]).toEqual([1, '']);
  }
});
