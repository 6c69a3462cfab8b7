// One session with RabbitMQ: the queue is there, and its messages go to the handlers. A message is acknowledged when all of
// its events were dealt with; what is no event is rejected, which dead-letters it where the queue says so.
import type { Channel, ConsumeMessage } from 'amqplib';
import { answered, type BrokerSession } from '../shared/broker.ts';
import { ALL_EVENTS } from '../shared/topology.ts';
import { eventsIn } from './event-message.ts';
import type { InOrder } from './in-order.ts';
import type { Problem, SubscribeOptions } from './subscription.ts';

/** Each loss of the connection delivers once more what was in hand. Left out, RabbitMQ 4 drops a message after 20 times. */
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

/** Returns when messages can arrive; they do until the session ends. */
export async function consume(
  session: BrokerSession,
  queue: Queue,
  prefetch: number,
  inOrder: InOrder,
  report: (problem: Problem) => void,
): Promise<Channel> {
  const channel = await answered('opening a channel', session.connection.createChannel());
  channel.on('error', session.end);
  channel.on('close', () => session.end(new Error('channel closed')));
  const name = await declared(channel, queue);
  await answered('setting the prefetch', channel.prefetch(prefetch));

  function onMessage(message: ConsumeMessage | null): void {
    if (!message) {
      session.end(new Error('the queue was deleted, or its node went away'));
      return;
    }
    const events = eventsIn(message);
    if (!events) {
      report({ kind: 'malformed_message', message: 'a message that is no event of highload-balance was rejected' });
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

/** When the channel has closed meanwhile, the message is delivered again. */
function settle(answer: () => void): void {
  try {
    answer();
  } catch {}
}
