// Finds the subscribers' queue that accepts nothing, and puts it aside. A publish to their exchange
// has one confirm for all queues, and AMQP does not report which one withholds it: so the waiting
// event is sent to each queue separately.
import type { ChannelModel } from 'amqplib';
import { answered, closeConnection, connect } from '../../shared/broker.ts';
import type { BoundQueue } from '../../shared/broker-management.ts';
import { eventId } from '../../shared/change.ts';
import { openChannel } from '../../shared/channel.ts';
import { EVENT_CONTENT_TYPE, encodeEvent } from '../../shared/events.ts';
import { within } from '../../shared/within.ts';
import type { OutboxRow } from './outbox.ts';

/** A healthy queue confirms within milliseconds, or after a change of its leader. */
const CONFIRM_MS = 3000;
/**
 * If a timer is later than this, the process was frozen, and the answer may be unread in its
 * socket.
 */
const LATE_MS = 500;
const SERVICE = 'relay, looking for a queue';
/** The error of amqplib for a negative confirm. */
const NACKED = 'message nacked';

export interface SickQueue extends BoundQueue {
  /** It refuses (full or down), or does not answer. */
  problem: 'refuses' | 'is silent';
}

/**
 * Sends the event to each queue, which costs healthy queues one duplicate.
 * @throws when the broker refuses the connection.
 */
export async function findSickQueues(
  amqpUrl: string,
  queues: readonly BoundQueue[],
  row: OutboxRow,
  signal: AbortSignal,
): Promise<SickQueue[]> {
  const sick: SickQueue[] = [];
  let connection: ChannelModel | undefined;
  try {
    for (const queue of queues) {
      if (signal.aborted) break;
      connection ??= await connect(amqpUrl, SERVICE);
      const problem = await problemOf(connection, queue.name, row);
      if (problem) sick.push({ ...queue, problem });
      if (problem !== 'is silent') continue;
      // What waits for a silent queue holds up the others on its connection.
      await closeConnection(connection);
      connection = undefined;
    }
  } finally {
    if (connection) await closeConnection(connection);
  }
  return sick;
}

async function problemOf(
  connection: ChannelModel,
  queue: string,
  row: OutboxRow,
): Promise<SickQueue['problem'] | undefined> {
  const channel = await openChannel(connection.createConfirmChannel());
  const message = { persistent: true, messageId: eventId(row), contentType: EVENT_CONTENT_TYPE };
  const confirmed = new Promise<'refuses' | undefined>((resolve, reject) => {
    channel.publish('', queue, encodeEvent(row), message, (error?: Error) => {
      if (error && error.message !== NACKED)
        reject(error); // such as a permission that is missing: no answer of the queue
      else resolve(error && 'refuses');
    });
  });
  const dueAtMs = performance.now() + CONFIRM_MS;
  const problem = await within(CONFIRM_MS, confirmed, () =>
    performance.now() < dueAtMs + LATE_MS ? ('is silent' as const) : undefined,
  );
  if (problem !== 'is silent') await answered('closing a channel', channel.close());
  return problem;
}

/**
 * Removes its bindings, so that the exchange continues without it. @throws when RabbitMQ refuses
 * that.
 */
export async function unbind(amqpUrl: string, exchange: string, { name, bindings }: BoundQueue): Promise<void> {
  const connection = await connect(amqpUrl, SERVICE);
  try {
    const channel = await openChannel(connection.createChannel());
    for (const { routingKey, arguments: its } of bindings)
      await answered('unbinding a queue', channel.unbindQueue(name, exchange, routingKey, its));
  } finally {
    await closeConnection(connection);
  }
}
