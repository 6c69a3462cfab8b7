// Shows events as they come from RabbitMQ, while someone watches: a subscriber like any other, with
// a queue of its own that holds little and drops the oldest. What passes faster than it is taken
// out is not seen: a sample, and never a burden. It also knows what only the broker knows: how much
// waits for the worker, and whether there is one.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel, ConsumeMessage } from 'amqplib';
import { answered, type BrokerSession, keepBrokerLink, type LinkLog } from '../../shared/broker.ts';
import { openChannel } from '../../shared/channel.ts';
import type { BalanceEvent } from '../../shared/contract.ts';
import { eventsIn } from '../../shared/events.ts';
import type { Logger } from '../../shared/logging.ts';
import { MESSAGE_BYTES_MAX } from '../../shared/message-bounds.ts';
import { ALL_EVENTS, declareTopology, type Topology } from '../../shared/topology.ts';

/**
 * Together 400 messages a second at most: beside 10,000 updates a second their cost does not show
 * (npm run bench:console).
 */
const EVERY_MS = 100;
const EVENTS_MAX = 40;
/**
 * The queue is removed with its connection; if that died in silence, once it is unused for so long.
 */
const QUEUE_EXPIRES_MS = 60_000;
const LOOK_EVERY_MS = 1000;
/** An older look at the queue of the ledger says nothing about now. */
const LOOK_COUNTS_MS = 3000;

/** The queue that the worker takes from. */
export interface LedgerQueue {
  /** Messages in it that no worker has yet. */
  waiting: number;
  /** Workers that take from it. */
  consumers: number;
}

export interface EventTap {
  /** Whether events arrive here. */
  readonly connected: boolean;
  /** Undefined while the broker does not say. */
  ledgerQueue(): LedgerQueue | undefined;
  stop(): Promise<void>;
}

/** @param onEvents gets what came in a tenth of a second, as it stood in the messages, in the order of the queue. */
export function startEventTap(
  amqpUrl: string,
  topology: Topology,
  onEvents: (events: BalanceEvent[]) => void,
  log: Logger,
): EventTap {
  let seen: { queue: LedgerQueue; atMs: number } | undefined;
  let isConsuming = false;
  const onLook = (queue: LedgerQueue) => {
    seen = { queue, atMs: performance.now() };
  };
  const link = keepBrokerLink({
    url: amqpUrl,
    service: 'console',
    log: logOf(log),
    run: (session) => {
      session.signal.addEventListener('abort', () => (isConsuming = false));
      return tap(session, topology, onEvents, onLook, () => (isConsuming = true));
    },
  });
  return {
    get connected() {
      return link.connected && isConsuming;
    },
    ledgerQueue: () =>
      link.connected && seen && performance.now() - seen.atMs < LOOK_COUNTS_MS ? seen.queue : undefined,
    stop: () => link.stop(),
  };
}

/** Someone who opens the console is no news; a link that ends or fails is. */
function logOf(log: Logger): LinkLog {
  const own = log.child({ link: 'console' });
  return {
    info: (facts, message) => own.debug(facts, message),
    warn: (facts, message) => own.warn(facts, message),
    error: (facts, message) => own.error(facts, message),
  };
}

async function tap(
  session: BrokerSession,
  topology: Topology,
  onEvents: (events: BalanceEvent[]) => void,
  onLook: (queue: LedgerQueue) => void,
  onConsuming: () => void,
): Promise<void> {
  const channel = await openChannel(session.connection.createChannel(), session);
  await answered('declaring the queues', declareTopology(channel, topology));
  const looking = lookForEver(channel, session.signal, topology.ledgerQueue, onLook);
  looking.catch(session.end);
  const queue = `${topology.consoleQueues}${randomUUID()}`;
  await answered(
    'declaring the queue of the console',
    channel.assertQueue(queue, {
      exclusive: true,
      autoDelete: true,
      expires: QUEUE_EXPIRES_MS,
      arguments: { 'x-max-length': EVENTS_MAX, 'x-overflow': 'drop-head' },
    }),
  );
  await answered('binding it', channel.bindQueue(queue, topology.eventsExchange, ALL_EVENTS));
  await answered('setting the prefetch', channel.prefetch(EVENTS_MAX));
  let waiting: Buffer[] = []; // bounded by prefetch, and each by what a message of events can be
  let last: ConsumeMessage['fields'] | undefined;
  const onMessage = (message: ConsumeMessage | null) => {
    if (!message) return session.end(new Error('consumer cancelled by RabbitMQ'));
    last = message.fields;
    if (message.content.length <= MESSAGE_BYTES_MAX) waiting.push(message.content);
  };
  await answered('consuming it', channel.consume(queue, onMessage));
  if (!session.signal.aborted) onConsuming();
  while (!session.signal.aborted) {
    await delay(EVERY_MS, undefined, { signal: session.signal }).catch(() => {});
    if (!last || session.signal.aborted) continue;
    const events = newest(waiting);
    channel.ack({ fields: last } as ConsumeMessage, true);
    waiting = [];
    last = undefined;
    if (events.length > 0) onEvents(events);
  }
}

/** The last events of these messages, in their order; none of what others have published. */
function newest(messages: readonly Buffer[]): BalanceEvent[] {
  const events: BalanceEvent[] = [];
  for (let index = messages.length - 1; index >= 0 && events.length < EVENTS_MAX; index -= 1) {
    events.unshift(...(eventsIn(messages[index] as Buffer) ?? []));
  }
  return events.slice(-EVENTS_MAX);
}

async function lookForEver(
  channel: Channel,
  signal: AbortSignal,
  queue: string,
  onLook: (queue: LedgerQueue) => void,
): Promise<void> {
  while (!signal.aborted) {
    const { messageCount, consumerCount } = await answered('looking at a queue', channel.checkQueue(queue));
    onLook({ waiting: messageCount, consumers: consumerCount });
    await delay(LOOK_EVERY_MS, undefined, { signal }).catch(() => {});
  }
}
