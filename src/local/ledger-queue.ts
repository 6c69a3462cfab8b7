// The service's own queues on a broker: reads the state of the worker's queue, and deletes them.
// Uses a separate connection.
import { answered, closeConnection, connect } from '../shared/broker.ts';
import { openChannel } from '../shared/channel.ts';
import type { Topology } from '../shared/topology.ts';
import { within } from '../shared/within.ts';

/** Of the broker's answer; a cluster has as many nodes to try first as fit in it. */
const ANSWER_TIMEOUT_MS = 10_000;

export interface QueueState {
  /** Waiting messages; those in flight to a consumer do not count. */
  messages: number;
  consumers: number;
}

/** Undefined when there is no such queue, or when the broker does not answer in time. */
export async function queueState(amqpUrl: string, queue: string): Promise<QueueState | undefined> {
  return within(ANSWER_TIMEOUT_MS, ask(amqpUrl, queue), () => undefined).catch(() => undefined);
}

async function ask(amqpUrl: string, queue: string): Promise<QueueState> {
  const connection = await connect(amqpUrl, 'start');
  try {
    const channel = await openChannel(connection.createChannel());
    const { messageCount, consumerCount } = await channel.checkQueue(queue);
    return { messages: messageCount, consumers: consumerCount };
  } finally {
    void closeConnection(connection);
  }
}

/**
 * Deletes the service's own queues with everything in them. Subscribers' queues stay. @throws Error
 * of the broker.
 */
export async function deleteOwnQueues(amqpUrl: string, { ledgerQueue, deadLetters }: Topology): Promise<void> {
  const connection = await connect(amqpUrl, 'start');
  try {
    const channel = await openChannel(connection.createChannel());
    for (const queue of [ledgerQueue, deadLetters]) {
      await answered(`deleting the queue ${queue}`, channel.deleteQueue(queue));
    }
  } finally {
    await closeConnection(connection);
  }
}
