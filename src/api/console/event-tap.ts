// Shows events as they come from RabbitMQ, while somebody watches: a subscriber like any other, with a queue of its own
// that holds little and drops the oldest. What passes faster than it is taken out is not seen: a sample, and never a burden.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { ConsumeMessage } from 'amqplib';
import { answered, type BrokerSession, keepBrokerLink } from '../../shared/broker.ts';
import { decodeEvents, eventId } from '../../shared/events.ts';
import type { Logger } from '../../shared/logging.ts';
import { declareTopology, type Topology } from '../../shared/topology.ts';

/** Together 400 events a second at most, which costs one percent of a core. */
const EVERY_MS = 100;
const EVENTS_MAX = 40;
/** The queue goes with its connection, or, where that died in silence, when nobody has used it for so long. */
const QUEUE_EXPIRES_MS = 60_000;

export interface SeenEvent {
  id: string;
  accountId: string;
  version: number;
  amount: number;
  balance: number;
  reference: string | null;
  createdAt: string;
}

export interface EventTap {
  readonly connected: boolean;
  stop(): Promise<void>;
}

/** @param onEvents gets what came in a tenth of a second, in the order of the queue. */
export function startEventTap(options: {
  amqpUrl: string;
  topology: Topology;
  log: Logger;
  onEvents: (events: SeenEvent[]) => void;
}): EventTap {
  const link = keepBrokerLink({
    url: options.amqpUrl,
    service: 'console',
    log: options.log,
    run: (session) => tap(session, options.topology, options.onEvents),
  });
  return {
    get connected() {
      return link.connected;
    },
    stop: () => link.stop(),
  };
}

async function tap(session: BrokerSession, topology: Topology, onEvents: (events: SeenEvent[]) => void): Promise<void> {
  const channel = await answered('opening a channel', session.connection.createChannel());
  channel.on('error', session.end);
  channel.on('close', () => session.end(new Error('channel closed')));
  await answered('declaring the queues', declareTopology(channel, topology));
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
  await answered('binding it', channel.bindQueue(queue, topology.eventsExchange, 'balance.*'));
  await answered('setting the prefetch', channel.prefetch(EVENTS_MAX));
  let waiting: ConsumeMessage[] = []; // bounded by prefetch
  const onMessage = (message: ConsumeMessage | null) => {
    if (message) waiting.push(message);
    else session.end(new Error('consumer cancelled by RabbitMQ'));
  };
  await answered('consuming it', channel.consume(queue, onMessage));
  while (!session.signal.aborted) {
    await delay(EVERY_MS, undefined, { signal: session.signal }).catch(() => {});
    const last = waiting.at(-1);
    if (!last || session.signal.aborted) continue;
    const events = waiting.flatMap(({ content }) => decodeEvents(content) ?? []);
    waiting = [];
    channel.ack(last, true);
    onEvents(
      events.slice(-EVENTS_MAX).map((change) => ({
        id: eventId(change.accountId, change.version),
        accountId: change.accountId,
        version: change.version,
        amount: change.amount,
        balance: change.balance,
        reference: change.reference,
        createdAt: change.createdAt.toISOString(),
      })),
    );
  }
}
