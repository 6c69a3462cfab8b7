// The exchange and queues on RabbitMQ. Declared by every process that connects, so that a lost
// broker is restored automatically.
import type { Channel } from 'amqplib';

export interface Topology {
  /** Topic exchange of all events; subscribers bind queues of their own to it. */
  eventsExchange: string;
  /** Fanout exchange of the worker's queue alone, so that no subscriber holds it up. */
  ledgerExchange: string;
  /** The worker's queue. */
  ledgerQueue: string;
  /** Exchange and queue of the messages that the worker refused. */
  deadLetters: string;
  /** Prefix of the names of the queues that an open console has. */
  consoleQueues: string;
}

/** Every crash of a worker returns its messages once more; a plain crash loop must not dead-letter good events. */
const DELIVERY_LIMIT = 1000;
/**
 * Each reading of the dead letters returns them once more. By default, RabbitMQ 4 drops a message
 * at the 21st reading.
 */
const LOOKS_MAX = 1_000_000;
/**
 * Refused messages are evidence, not data: the oldest are dropped first when someone floods the
 * queue.
 */
const DEAD_LETTERS_MAX = 100_000;
/**
 * Between the end of a queue and its next declaration: RabbitMQ notifies consumers within about 40
 * ms that their queue is gone, and 3.10 never notifies those whose queue was declared again before
 * that: they wait indefinitely.
 */
export const DELETED_QUEUE_SETTLE_MS = 500;

/** Binds a queue to every event: with only some of the types, versions would be missing. */
export const ALL_EVENTS = '#';

export function topologyOf(namespace: string): Topology {
  return {
    eventsExchange: `${namespace}.events`,
    ledgerExchange: `${namespace}.ledger`,
    ledgerQueue: `${namespace}.ledger`,
    deadLetters: `${namespace}.dead`,
    consoleQueues: `${namespace}.console.`,
  };
}

/**
 * Creates what is missing. Idempotent. Fails when something of that name exists with other
 * properties. Returns how many messages are ready in the ledger queue.
 */
export async function declareTopology(channel: Channel, topology: Topology): Promise<{ ledgerQueueMessages: number }> {
  await channel.assertExchange(topology.eventsExchange, 'topic', { durable: true });
  await channel.assertExchange(topology.ledgerExchange, 'fanout', { durable: true });
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
  await channel.bindQueue(topology.ledgerQueue, topology.ledgerExchange, '');
  return { ledgerQueueMessages: messageCount };
}
