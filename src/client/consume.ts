// One session with RabbitMQ: declares the queue and passes its messages to the handlers. A message
// is acknowledged once all of its events have been handled; a message without valid events is
// rejected, which dead-letters it if the queue is configured so.
import type { Channel, ConsumeMessage } from 'amqplib';
import { answered, type BrokerSession } from '../shared/broker.ts';
import { openChannel } from '../shared/channel.ts';
import { ALL_EVENTS } from '../shared/topology.ts';
import { eventsIn } from './event-message.ts';
import type { InOrder } from './in-order.ts';
import type { Problem, SubscribeOptions } from './subscription.ts';

/**
 * Each lost connection redelivers the messages in hand. By default, RabbitMQ 4 drops a message
 * after 20 deliveries.
 */
const DELIVERY_LIMIT = 1_000_000;

/** What is consumed: declared here and bound to the exchange, or taken as it is. */
export interface Queue {
  /** Empty: one for this connection alone. */
  name: string;
  exchange: string;
  declare: boolean;
}

/** @throws TypeError */
export function queueIn({ namespace = 'balance', queue = '', declareQueue = true }: SubscribeOptions): Queue {
  if (!namespace) throw new TypeError('namespace must not be empty');
  if (!declareQueue && !queue) throw new TypeError('declareQueue: false needs the name of a queue');
  if (queue.startsWith(`${namespace}.`)) {
    throw new TypeError(`queue must not begin with "${namespace}.": those are queues of the service itself`);
  }
  return { name: queue, exchange: `${namespace}.events`, declare: declareQueue };
}

/** Resolves once messages can arrive. They keep arriving until the session ends. */
export async function consume(
  session: BrokerSession,
  queue: Queue,
  prefetch: number,
  inOrder: InOrder,
  report: (problem: Problem) => void,
): Promise<Channel> {
  const channel = await openChannel(session.connection.createChannel(), session);
  const name = await declared(channel, queue);
  await answered('setting the prefetch', channel.prefetch(prefetch));

  function onMessage(message: ConsumeMessage | null): void {
    if (!message) {
      session.end(new Error('the queue was deleted, or its node went down'));
      return;
    }
    const events = eventsIn(message);
    if (!events) {
      report({ kind: 'malformed_message', message: 'rejected a message that is not an event of highload-balance' });
      settle(() => channel.reject(message, false));
      return;
    }
    inOrder.take({
      events,
      redelivered: message.fields.redelivered,
      replayed: message.properties.headers?.['x-replayed'] === true,
      done: () => settle(() => channel.ack(message)),
    });
  }
  await answered('consuming the queue', channel.consume(name, onMessage));
  return channel;
}

async function declared(channel: Channel, { name, exchange, declare }: Queue): Promise<string> {
  if (!declare) return name;
  const options =
    name === ''
      ? { exclusive: true }
      : {
          durable: true,
          arguments: {
            'x-queue-type': 'quorum',
            'x-delivery-limit': DELIVERY_LIMIT,
            'x-single-active-consumer': true, // several would each see gaps
          },
        };
  const { queue } = await answered('declaring the queue', channel.assertQueue(name, options));
  await answered('binding the queue', channel.bindQueue(queue, exchange, ALL_EVENTS));
  return queue;
}

/** If the channel has closed meanwhile, the message is delivered again. */
function settle(answer: () => void): void {
  try {
    answer();
  } catch {}
}
