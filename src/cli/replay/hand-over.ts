// Fills a queue with past events and then new ones, without a gap. Bound before the replay, it
// would get new events first, and its consumer would have to hold all of them; bound after it, it
// would miss the events in between. So another queue keeps new events until the past ones are
// published.
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel, ChannelModel, ConsumeMessage } from 'amqplib';
import { answered } from '../../shared/broker.ts';
import { askOnce, openChannel } from '../../shared/channel.ts';
import { SettingsError } from '../../shared/config.ts';
import { CHANGE_TYPES } from '../../shared/contract.ts';
import { ALL_EVENTS } from '../../shared/topology.ts';
import { propertiesOf, takeMessages } from '../messages.ts';
import type { Message, ReplayPublisher } from './publisher.ts';

/** As the client's subscribe() declares a queue, so that both find it as they would make it. */
const QUEUE = {
  durable: true,
  arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 1_000_000, 'x-single-active-consumer': true },
};
/**
 * Events still kept when the queue is bound reach its consumer after newer ones, which it has to
 * hold until then: half of the 2,000 that subscribe() holds. Less where events come more slowly
 * than they are moved: each round moves what came during the one before.
 */
const KEPT_MAX = 1000;
const ROUNDS_MAX = 50;
const PAGE_MAX = 500;
const SILENCE_MS = 10_000;
/**
 * Messages routed before a binding was removed may still be on their way to the queue, from another
 * node of a cluster.
 */
const ON_ITS_WAY_MS = 1000;

/**
 * How a queue may be bound: to everything, or by type. AMQP does not report which, and unbinding a
 * missing binding does nothing.
 */
export const ANY_BINDING: readonly string[] = [
  ...[ALL_EVENTS, '*.*'],
  ...CHANGE_TYPES,
  ...[...new Set(CHANGE_TYPES.map((type) => type.split('.')[0]))].flatMap((kind) => [`${kind}.*`, `${kind}.#`]),
  ...[...new Set(CHANGE_TYPES.map((type) => type.split('.')[1]))].flatMap((end) => [`*.${end}`, `#.${end}`]),
];

/** By which keys a queue gets the present. */
export interface Bindings {
  /** At the end, and kept for until then. */
  bound: readonly string[];
  /**
   * Bindings that are removed at the start, if present: new events would otherwise come before past
   * ones.
   */
  unbound: readonly string[];
}

export interface HandOver {
  /**
   * Moves what was kept into the queue, and binds it. @returns the messages that were kept.
   * @param beforeBinding called when all is ready for it.
   */
  finish(publisher: ReplayPublisher, beforeBinding?: () => Promise<void>): Promise<number>;
}

/** @throws SettingsError where there is one of another kind. */
export async function declareQueue(connection: ChannelModel, queue: string): Promise<void> {
  const declare = (channel: Channel) => channel.assertQueue(queue, QUEUE);
  await askOnce(connection, 'declaring the queue', declare).catch((error: Error) => {
    throw isOfAnotherKind(error)
      ? new SettingsError(
          `The queue ${queue} is of another kind than --hand-over creates: a quorum queue with a single active consumer, not exclusive. Hand over to a new one. RabbitMQ: ${error.message}`,
        )
      : error;
  });
}

/**
 * Begins to keep what is published. Kept events are lost with the connection: then the replay has
 * to be run again.
 */
export async function beginHandOver(
  connection: ChannelModel,
  exchange: string,
  queue: string,
  { bound, unbound }: Bindings,
): Promise<HandOver> {
  const channel = await openChannel(connection.createChannel());
  const { queue: keeper } = await answered('declaring a queue', channel.assertQueue('', { exclusive: true }));
  for (const key of bound) await answered('binding a queue', channel.bindQueue(keeper, exchange, key));
  for (const key of unbound) await answered('unbinding the queue', channel.unbindQueue(queue, exchange, key));

  const left = async () => (await answered('asking the queue', channel.checkQueue(keeper))).messageCount;

  async function move(publisher: ReplayPublisher, messages: number): Promise<void> {
    for (let moved = 0; moved < messages; ) {
      const page = await take(Math.min(PAGE_MAX, messages - moved));
      await publisher.publish(page.map(again));
      moved += page.length;
    }
  }

  /**
   * The next messages, `count` at most, which are known to be there. The queue is exclusive, so
   * taken messages are gone.
   */
  async function take(count: number): Promise<ConsumeMessage[]> {
    const page = await takeMessages(channel, keeper, count, SILENCE_MS);
    if (page.length === 0) throw new SettingsError('RabbitMQ does not deliver what was published meanwhile.');
    channel.ack(page.at(-1) as ConsumeMessage, true);
    return page;
  }

  return {
    async finish(publisher, beforeBinding) {
      let moved = 0;
      const moveOn = async () => {
        const messages = await left();
        await move(publisher, messages);
        moved += messages;
        return messages;
      };
      let kept = await moveOn();
      for (let round = 1; kept > 0 && round < ROUNDS_MAX; round += 1) kept = await moveOn();
      if (kept > KEPT_MAX)
        throw new SettingsError(
          'Events arrive faster than they can be handed over. Try again when there is less traffic.',
        );
      await beforeBinding?.();
      for (const key of bound) await answered('binding the queue', channel.bindQueue(queue, exchange, key));
      await moveOn(); // at once: the consumer waits for it
      for (const key of bound) await answered('unbinding a queue', channel.unbindQueue(keeper, exchange, key));
      await delay(ON_ITS_WAY_MS);
      await moveOn();
      return moved;
    },
  };
}

/** RabbitMQ refuses to declare it again like this: other arguments, or of another connection alone. */
function isOfAnotherKind(error: Error & { code?: number }): boolean {
  return error.code === 406 || error.code === 405;
}

function again(message: ConsumeMessage): Message {
  const properties = propertiesOf(message);
  properties.headers['x-replayed'] = true;
  return { routingKey: message.fields.routingKey, content: message.content, properties };
}
