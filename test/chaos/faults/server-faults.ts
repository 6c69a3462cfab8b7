// PostgreSQL and RabbitMQ that die, lose their disk or run out of memory; queues that are full, deleted, or fed with lies.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { ChannelModel, ConsumeMessage } from 'amqplib';
import { closeConnection, connect } from '../../../src/shared/broker.ts';
import { type Change, eventId, SELECT_CHANGE } from '../../../src/shared/change.ts';
import type { Pool } from '../../../src/shared/database.ts';
import { decodeEvents, encodeEvent } from '../../../src/shared/events.ts';
import { ALL_EVENTS } from '../../../src/shared/topology.ts';
import { now } from '../history.ts';
import { FORGED_HEADER } from '../subscriber.ts';
import { type Fault, type FaultContext, holds, relayOf, wasWiped } from './fault.ts';

const track = 'servers';
const ALARM_TIMEOUT_MS = 15_000;
const SUBSCRIBE_TIMEOUT_MS = 60_000;
const READ_TIMEOUT_MS = 15_000;
const ACCOUNT_VERSIONS = 'SELECT account_id AS id, version FROM account';
const WATERMARK = { alarming: '0.0001', usual: '0.4' };
/** Enough room, once it is read, for what comes again all at once. */
const FULL_QUEUE_LENGTH = 100;
const FULL_MS_MAX = 3000;
const HUNG_MS_MAX = 15_000;
/** How long it may take until it comes again, another relay's start included. */
const AGAIN_MS_MAX = 20_000;
const MISSED_TIMEOUT_MS = 40_000;
const FORGED_TIMEOUT_MS = 10_000;
const RECONNECT_PAUSE_MS = 200;
const DELETE_TIMEOUT_MS = 60_000;

async function withBroker(
  { broker }: FaultContext,
  work: (connection: ChannelModel) => Promise<boolean>,
): Promise<boolean> {
  const connection = await connect(broker.url, 'test');
  try {
    return await work(connection);
  } finally {
    await closeConnection(connection);
  }
}

export const serverFaults: Fault[] = [
  {
    name: 'database-stop',
    track,
    async inject({ postgres, random, evidence }) {
      if (!postgres) return false;
      const startMs = now();
      await postgres.stopImmediately();
      await delay(random.between(0, 2000));
      await postgres.start();
      evidence.stops.push({ startMs, endMs: now() });
      return true;
    },
  },
  {
    name: 'broker-kill',
    track,
    async inject({ broker, random }) {
      await broker.kill();
      await delay(random.between(0, 2000));
      await broker.start();
      return true;
    },
  },
  {
    name: 'broker-wipe',
    track,
    async inject({ broker, fleet, pool, subscriber, evidence }) {
      const read = await versionsOf(
        pool,
        'SELECT account_id AS id, max(version) AS version FROM ledger GROUP BY account_id',
      );
      if (!(await holds(() => subscriber.hasRead(read, (...change) => wasWiped(evidence, ...change)), READ_TIMEOUT_MS)))
        return false;
      // A subscriber that is not bound when an event is published has no right to it, so ours binds first.
      for (const api of fleet.apis) api.links.broker.refuse(true);
      try {
        await broker.kill();
        const accepted = await versionsOf(pool, ACCOUNT_VERSIONS);
        evidence.wipes.push({ atMs: now(), read, accepted });
        await broker.restartEmpty();
        if (!(await holds(() => subscriber.isConnected, SUBSCRIBE_TIMEOUT_MS)))
          throw new Error('the subscriber is not back');
      } finally {
        for (const api of fleet.apis) api.links.broker.refuse(false);
      }
      return true;
    },
  },
  {
    name: 'broker-alarm',
    track,
    async inject({ broker, fleet }) {
      await broker.control('set_vm_memory_high_watermark', WATERMARK.alarming);
      try {
        const isBlocked = async () =>
          (await Promise.all(fleet.apis.map(relayOf))).some((relay) => relay?.ledger.broker === 'blocked');
        return await holds(isBlocked, ALARM_TIMEOUT_MS);
      } finally {
        await broker.control('set_vm_memory_high_watermark', WATERMARK.usual);
      }
    },
  },
  {
    name: 'subscriber-full',
    track,
    inject: (context) =>
      withBroker(context, async (connection) => {
        const channel = await connection.createChannel();
        const limits = { 'x-max-length': FULL_QUEUE_LENGTH, 'x-overflow': 'reject-publish' };
        const { queue } = await channel.assertQueue('', { exclusive: true, arguments: limits });
        await channel.bindQueue(queue, context.topology.eventsExchange, ALL_EVENTS);
        const bound = await versionsOf(context.pool, ACCOUNT_VERSIONS);
        const isFull = await holds(
          async () => (await channel.checkQueue(queue)).messageCount >= FULL_QUEUE_LENGTH,
          5000,
        );
        if (!isFull) return false;
        await delay(context.random.between(200, FULL_MS_MAX));
        await missNothing(context, (note) => channel.consume(queue, note, { noAck: true }), bound);
        return true; // the queue goes with its connection
      }),
  },
  {
    name: 'subscriber-hung',
    track,
    async inject(context) {
      const queue = 'test.hung';
      // The process of its leader; the broker's other processes go on.
      const set = (what: 'suspend' | 'resume') =>
        context.broker.control('eval', `case whereis('%2F_${queue}') of undefined -> ok; Pid -> sys:${what}(Pid) end.`);
      try {
        const isBound = await withBroker(context, async (connection) => {
          const channel = await connection.createChannel();
          await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
          await channel.bindQueue(queue, context.topology.eventsExchange, ALL_EVENTS);
          return true;
        }).catch(() => false); // the broker is not over the fault before
        if (!isBound) return false;
        const bound = await versionsOf(context.pool, ACCOUNT_VERSIONS);
        await set('suspend');
        try {
          await delay(context.random.between(0, HUNG_MS_MAX));
        } finally {
          await set('resume');
        }
        const over = new AbortController();
        const read = (note: Note) => void readOn(context, { queue, note, signal: over.signal });
        await missNothing(context, read, bound).finally(() => over.abort());
      } finally {
        await deleteQueue(context, queue);
      }
      return true;
    },
  },
  {
    name: 'queue-deleted',
    track,
    async inject(context) {
      await deleteQueue(context, context.topology.ledgerQueue);
      return true;
    },
  },
  {
    name: 'forged-events',
    track,
    inject: forgeEvents,
  },
];

type Note = (message: ConsumeMessage | null) => void;

/**
 * Reads a queue until the signal, over another connection when one ends: RabbitMQ 3.10 may answer what uses a queue that hung
 * with an internal error, which closes the connection.
 */
async function readOn(
  context: FaultContext,
  { queue, note, signal }: { queue: string; note: Note; signal: AbortSignal },
): Promise<void> {
  while (!signal.aborted) {
    await withBroker(context, async (connection) => {
      const channel = await connection.createChannel();
      const over = new Promise<unknown>((resolve) => {
        for (const ends of [channel, connection]) ends.on('close', resolve).on('error', resolve);
        signal.addEventListener('abort', resolve);
        if (signal.aborted) resolve(undefined);
      });
      const consuming = channel.consume(queue, (message) => {
        note(message);
        if (message) channel.ack(message);
      });
      await Promise.race([over, consuming.then(() => over)]);
      return true;
    }).catch(() => delay(RECONNECT_PAUSE_MS));
  }
}

async function deleteQueue(context: FaultContext, queue: string): Promise<void> {
  const deleted = () =>
    withBroker(context, async (connection) => {
      const channel = await connection.createChannel();
      await channel.deleteQueue(queue);
      return true;
    });
  if (!(await holds(deleted, DELETE_TIMEOUT_MS))) throw new Error(`the queue ${queue} could not be deleted`);
}

/**
 * What a queue did not take comes again once it can take it: of what was accepted since it was bound, and has come to the
 * other subscriber, it gets everything.
 */
async function missNothing(
  { pool, evidence, subscriber }: FaultContext,
  read: (note: Note) => unknown,
  bound: ReadonlyMap<string, number>,
): Promise<void> {
  const got = new Set<string>();
  const accepted = await versionsOf(pool, ACCOUNT_VERSIONS).catch(() => bound); // the database is away
  const note: Note = (message) => {
    for (const { accountId, version } of (message && decodeEvents(message.content)) ?? [])
      got.add(`${accountId}:${version}`);
  };
  await read(note);
  const wanted = [...accepted].flatMap(([accountId, last]) => {
    const first = (bound.get(accountId) ?? -1) + 1;
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => `${accountId}:${first + index}`);
  });
  if (await holds(() => wanted.every((id) => got.has(id)), MISSED_TIMEOUT_MS)) return;
  const elsewhere = new Set(
    subscriber.record.events.flatMap(({ event: { data }, atMs }) =>
      atMs < now() - AGAIN_MS_MAX ? `${data.accountId}:${data.version}` : [],
    ),
  );
  const missed = wanted.filter((id) => !got.has(id) && elsewhere.has(id));
  if (missed.length > 0)
    evidence.missed.push(
      `a queue that took nothing for a while never got ${missed.length} events, such as ${missed[0]}`,
    );
}

/** Puts into the ledger's queue what nobody should believe, confirmed by the broker. */
export function forgeEvents(context: FaultContext): Promise<boolean> {
  return withBroker(context, async (connection) => {
    const channel = await connection.createConfirmChannel();
    let isReturned = false;
    channel.on('return', () => {
      isReturned = true; // the queue is deleted, or about to be replaced
    });
    const publish = async (name: string, body: Buffer): Promise<boolean> => {
      const messageId = `forged ${name} ${randomUUID()}`;
      const properties = { persistent: true, mandatory: true, messageId, headers: { [FORGED_HEADER]: name } };
      const isTaken = await holds(() => {
        isReturned = false;
        channel.sendToQueue(context.topology.ledgerQueue, body, properties);
        return channel.waitForConfirms().then(
          () => !isReturned,
          (error: Error) => {
            if (error.message === 'message nacked') return false;
            throw error;
          },
        );
      }, FORGED_TIMEOUT_MS);
      if (isTaken) context.evidence.forged.push({ atMs: now(), messageId });
      return isTaken;
    };
    for (const lie of await lies(context)) {
      if (!(await publish(eventId(lie), encodeEvent(lie)))) return false;
    }
    return (
      (await publish('not JSON', Buffer.from('{"specversion":'))) &&
      (await publish('another event', Buffer.from('{"specversion":"1.0"}')))
    );
  });
}

async function versionsOf(pool: Pool, query: string): Promise<Map<string, number>> {
  const { rows } = await pool.query<{ id: string; version: number }>(query);
  return new Map(rows.map(({ id, version }) => [id, version]));
}

/**
 * Well-formed events about changes that never were: of nobody, of the future, of another past, and of another epoch. None has an
 * epoch between ours that are over: that may be of a history that the database lost, and is no dead letter.
 */
async function lies({ pool, random }: FaultContext): Promise<Change[]> {
  const { rows } = await pool.query<Change>(
    `SELECT * FROM (SELECT ${SELECT_CHANGE} FROM ledger WHERE type LIKE 'balance.%' ORDER BY version DESC LIMIT 20) newest`,
  );
  const true1 = rows.length > 0 ? random.pick(rows) : NOBODYS;
  const epoch: number = (await pool.query('SELECT max(epoch) AS epoch FROM epoch')).rows[0].epoch;
  const more = {
    type: 'balance.credited',
    amount: 1_000_000,
    balance: true1.balance + 1_000_000,
    reference: 'forged',
  } as const;
  const limits = { overdraftLimit: 1_000_000, maxBalance: null, status: 'open' } as const;
  const future = true1.version + random.between(1000, 2000);
  return [
    {
      ...NOBODYS,
      version: 0,
      previousEpoch: null,
      type: 'account.opened',
      amount: 0,
      balance: 0,
      reference: null,
      ...limits,
    },
    NOBODYS,
    { ...true1, ...more, version: future, epoch },
    { ...true1, type: 'account.changed', amount: 0, reference: null, version: future, epoch, ...limits },
    { ...true1, ...more, version: random.between(1, true1.version) },
    { ...true1, epoch: epoch + 1 },
    { ...true1, asset: 'FORGED' },
  ];
}

const NOBODYS: Change = {
  ...{ accountId: 'nobody', version: 1, epoch: 1, previousEpoch: 1, type: 'balance.credited', asset: 'UNIT' },
  ...{
    amount: 1_000_000,
    heldChange: 0,
    balance: 1_000_000,
    held: 0,
    createdAt: new Date(),
    reference: 'forged',
    actor: null,
  },
  ...{ metadata: null, transferId: null, reverses: null, holdId: null, holdStatus: null, holdRemaining: null },
  ...{ holdExpiresAt: null, overdraftLimit: null, maxBalance: null, status: null },
};
