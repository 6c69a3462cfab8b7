// The exchange and queues on RabbitMQ. Declared by whoever connects, so that a lost broker is whole again by itself.
import type { Channel } from 'amqplib';

export interface Topology {
  /** Topic exchange of all events; subscribers bind queues of their own to it. */
  eventsExchange: string;
  /** The worker's queue. */
  ledgerQueue: string;
  /** Exchange and queue of the messages that the worker refused. */
  deadLetters: string;
  /** Begin of the names of the queues that a console has while somebody watches. */
  consoleQueues: string;
}

/** Every crash of a worker returns its messages once more; a plain crash loop must not dead-letter good events. */
const DELIVERY_LIMIT = 1000;
/** Each look at the dead letters returns them once more. Left out, RabbitMQ 4 drops a message at the 21st look. */
const LOOKS_MAX = 1_000_000;
/** Refused messages are evidence, not data: the oldest go first when someone floods the queue. */
const DEAD_LETTERS_MAX = 100_000;
/**
 * Between the end of a queue and its next declaration: RabbitMQ tells consumers within some 40 ms that their queue is gone, and
 * 3.10 never tells those whose queue was declared again before that: they wait for ever.
 */
export const DELETED_QUEUE_SETTLE_MS = 500;

/** Binds a queue to every event: with some of the types alone, versions would be missing. */
export const ALL_EVENTS = '#';

export function topologyOf(namespace: string): Topology {
  return {
    eventsExchange: `${namespace}.events`,
    ledgerQueue: `${namespace}.ledger`,
    deadLetters: `${namespace}.dead`,
    consoleQueues: `${namespace}.console.`,
  };
}

/**
 * Creates what is missing. Repeatable. Fails when something of that name exists with other properties.
 * Returns how many messages are ready in the ledger queue.
 */
export async function declareTopology(channel: Channel, topology: Topology): Promise<{ ledgerQueueMessages: number }> {
  await channel.assertExchange(topology.eventsExchange, 'topic', { durable: true });
  await channel.assertExchange(topology.deadLetters, 'fanout', { durable: true });
  await channel.assertQueue(topology.deadLetters, {
    durable: true,
    arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': LOOKS_MAX, 'x-max-length': DEAD_LETTERS_MAX },
  });
  await channel.bindQueue(topology.deadLetters, topology.deadLetters, '');
  const { messageCount } = await channel.assertQueue(topology.ledgerQueue, {
    durable: true,
    arguments: {
      'x-queue-type': 'quorum',
      'x-delivery-limit': DELIVERY_LIMIT,
      'x-dead-letter-exchange': topology.deadLetters,
      // At least once needs reject-publish; without a length limit it rejects nothing. https://www.rabbitmq.com/docs/quorum-queues
      'x-dead-letter-strategy': 'at-least-once',
      'x-overflow': 'reject-publish',
    },
  });
  await channel.bindQueue(topology.ledgerQueue, topology.eventsExchange, ALL_EVENTS);
  return { ledgerQueueMessages: messageCount };
}
