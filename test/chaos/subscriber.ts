// An independent subscriber: a durable queue of its own, every event written down, acknowledged only then. It outlives the
// broker's death by connecting again. A second queue of its kind reads what the worker refused.
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel, ConsumeMessage } from 'amqplib';
import { closeConnection, connect } from '../../src/shared/broker.ts';
import type { BalanceEvent } from '../../src/shared/contract.ts';
import { balanceEvent } from '../../src/shared/events.ts';
import { ALL_EVENTS, declareTopology, type Topology } from '../../src/shared/topology.ts';
import { now } from './history.ts';

/** Marks what the suite itself has forged, so that no subscriber of the suite believes it. */
export const FORGED_HEADER = 'x-forged-by-test';

export interface SeenEvent {
  atMs: number;
  redelivered: boolean;
  event: BalanceEvent;
}

export interface SubscriberRecord {
  /** In the order of arrival, repeats included. */
  events: SeenEvent[];
  /** Messages that break the contract of docs/events.md. */
  broken: string[];
  /** What came to balance.dead. */
  dead: { messageId: string; isForged: boolean }[];
}

export interface Subscriber {
  readonly record: SubscriberRecord;
  readonly isConnected: boolean;
  /** Whether it has seen every version up to these, but for those that may be missing. */
  hasRead(versions: ReadonlyMap<string, number>, mayMiss: (accountId: string, version: number) => boolean): boolean;
  stop(): Promise<void>;
}

const RECONNECT_PAUSE_MS = 100;
const QUEUE = 'test.subscriber';

/** @param url straight to the broker: nobody disturbs this connection but the broker's own death. */
export function startSubscriber(url: string, topology: Topology): Subscriber {
  const record: SubscriberRecord = { events: [], broken: [], dead: [] };
  const stopping = new AbortController();
  let isConnected = false;
  const seen = new Set<string>();
  let noted = 0;

  async function serve(): Promise<void> {
    const connection = await connect(url, 'test subscriber');
    try {
      const ended = new Promise<void>((resolve) => connection.once('close', () => resolve()));
      const channel = await connection.createChannel();
      channel.on('error', () => {});
      const closed = new Promise<void>((resolve) => channel.once('close', resolve));
      await declareTopology(channel, topology);
      // Classic: a quorum queue that was declared just before a kill can come back answering nothing (docs/decisions).
      await channel.assertQueue(QUEUE, { durable: true });
      await channel.bindQueue(QUEUE, topology.eventsExchange, ALL_EVENTS);
      await channel.prefetch(1000);
      await consume(channel, QUEUE, (message) => noteEvent(record, message));
      await consume(channel, topology.deadLetters, (message) => noteDead(record, message));
      isConnected = true;
      await Promise.race([ended, closed, new Promise((resolve) => stopping.signal.addEventListener('abort', resolve))]);
    } finally {
      isConnected = false;
      await closeConnection(connection);
    }
  }
  const running = (async () => {
    while (!stopping.signal.aborted) {
      await serve().catch(() => {}); // the broker is away
      await delay(RECONNECT_PAUSE_MS, undefined, { signal: stopping.signal }).catch(() => {});
    }
  })();

  return {
    record,
    get isConnected() {
      return isConnected;
    },
    hasRead(versions, mayMiss) {
      for (const { event } of record.events.slice(noted)) seen.add(`${event.data.accountId}:${event.data.version}`);
      noted = record.events.length;
      for (const [accountId, last] of versions) {
        for (let version = last; version >= 0; version -= 1) {
          if (!seen.has(`${accountId}:${version}`) && !mayMiss(accountId, version)) return false;
        }
      }
      return true;
    },
    async stop() {
      stopping.abort();
      await running;
    },
  };
}

async function consume(channel: Channel, queue: string, note: (message: ConsumeMessage) => void): Promise<void> {
  await channel.consume(queue, (message) => {
    if (!message) return void channel.close().catch(() => {}); // cancelled: begin again
    note(message);
    try {
      channel.ack(message);
    } catch {
      // The channel is gone; the message comes again.
    }
  });
}

function noteEvent(record: SubscriberRecord, message: ConsumeMessage): void {
  if (isForged(message)) return;
  const { content, fields, properties } = message;
  let json: unknown;
  try {
    json = JSON.parse(content.toString());
  } catch {
    json = undefined;
  }
  const isBatch = Array.isArray(json);
  const events = (isBatch ? (json as unknown[]) : [json]).map((one) => balanceEvent.safeParse(one));
  for (const { success, data: event } of events) {
    if (!success) record.broken.push(`a message that is no event: ${content.toString().slice(0, 300)}`);
    else record.events.push({ atMs: now(), redelivered: fields.redelivered, event });
  }
  const first = events[0]?.data;
  if (first && properties.messageId !== first.id)
    record.broken.push(`${first.id} came with message_id ${properties.messageId}`);
  if (first && !isBatch && fields.routingKey !== first.type)
    record.broken.push(`${first.id} came by ${fields.routingKey}`);
  if (properties.deliveryMode !== 2) record.broken.push(`${first?.id} is not persistent`);
}

function noteDead(record: SubscriberRecord, message: ConsumeMessage): void {
  record.dead.push({ messageId: String(message.properties.messageId), isForged: isForged(message) });
}

function isForged({ properties }: ConsumeMessage): boolean {
  return properties.headers?.[FORGED_HEADER] !== undefined;
}
