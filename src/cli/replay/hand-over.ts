// How a queue comes to hold the past and then the present, without a gap between them. Bound before the replay it would get the
// present first, and its consumer would have to hold all of that; bound after it, it would miss what happened meanwhile. So
// another queue keeps the present until the past is told.
import { setTimeout as delay } from 'node:timers/promises';
import type { ChannelModel, ConsumeMessage } from 'amqplib';
import { answered } from '../../shared/broker.ts';
import { SettingsError } from '../../shared/config.ts';
import { CHANGE_TYPES } from '../../shared/contract.ts';
import { ALL_EVENTS, type Topology } from '../../shared/topology.ts';
import { propertiesOf, takeMessages } from '../messages.ts';
import type { Message, ReplayPublisher } from './publisher.ts';

/** As the client's subscribe() declares a queue, so that both find it as they would make it. */
const QUEUE = {
  durable: true,
  arguments: { 'x-queue-type': 'quorum', 'x-delivery-limit': 1_000_000, 'x-single-active-consumer': true },
};
/**
 * What is still kept when the queue is bound reaches its consumer behind the present, and has to be held until then: half of the
 * 2,000 that subscribe() holds. Less where events come more slowly than they are moved: each round moves what came during the
 * one before.
 */
const KEPT_MAX = 1000;
const ROUNDS_MAX = 50;
const PAGE_MAX = 500;
const SILENCE_MS = 10_000;
/** What was routed before a binding was taken away may be on its way to the queue still, from another node of a cluster. */
const ON_ITS_WAY_MS = 1000;

/**
 * How a queue may be bound: to everything, or by type. AMQP does not say which of them it is, and to unbind what is not
 * bound does nothing.
 */
const PATTERNS = [
  ...[ALL_EVENTS, '*.*'],
  ...CHANGE_TYPES,
  ...[...new Set(CHANGE_TYPES.map((type) => type.split('.')[0]))].flatMap((kind) => [`${kind}.*`, `${kind}.#`]),
  ...[...new Set(CHANGE_TYPES.map((type) => type.split('.')[1]))].flatMap((end) => [`*.${end}`, `#.${end}`]),
];

export interface HandOver {
  /** Moves what was kept into the queue, and binds it. @returns the messages that were kept. */
  finish(publisher: ReplayPublisher): Promise<number>;
}

/** Begins to keep what is published. What is kept goes with the connection: then the replay has to be made again. */
export async function beginHandOver(connection: ChannelModel, topology: Topology, queue: string): Promise<HandOver> {
  const channel = await answered('opening a channel', connection.createChannel());
  channel.on('error', () => {});
  await answered('declaring the queue', channel.assertQueue(queue, QUEUE)).catch((error: Error) => {
    throw isOfAnotherKind(error)
      ? new SettingsError(
          `There is a queue ${queue} of another kind than --hand-over makes: a quorum queue with a single active consumer, not exclusive. Hand over to a new one. RabbitMQ: ${error.message}`,
        )
      : error;
  });
  const { queue: keeper } = await answered('declaring a queue', channel.assertQueue('', { exclusive: true }));
  await answered('binding a queue', channel.bindQueue(keeper, topology.eventsExchange, ALL_EVENTS));
  // It is bound where a hand-over failed in its last moments, or where somebody did that: the present would come before the past.
  for (const pattern of PATTERNS) {
    await answered('unbinding the queue', channel.unbindQueue(queue, topology.eventsExchange, pattern));
  }

  const left = async () => (await answered('asking the queue', channel.checkQueue(keeper))).messageCount;

  async function move(publisher: ReplayPublisher, messages: number): Promise<void> {
    for (let moved = 0; moved < messages; ) {
      const page = await take(Math.min(PAGE_MAX, messages - moved));
      await publisher.publish(page.map(again));
      moved += page.length;
    }
  }

  /** The next messages, which are known to be there. They are ours alone: taken is gone. */
  async function take(count: number): Promise<ConsumeMessage[]> {
    const page = await takeMessages(channel, keeper, count, SILENCE_MS);
    if (page.length < count) throw new SettingsError('RabbitMQ does not give out what was published meanwhile.');
    channel.ack(page.at(-1) as ConsumeMessage, true);
    return page;
  }

  return {
    async finish(publisher) {
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
        throw new SettingsError('Events come faster than they can be handed over. Do it when less happens.');
      await answered('binding the queue', channel.bindQueue(queue, topology.eventsExchange, ALL_EVENTS));
      await moveOn(); // at once: the consumer waits for it
      await answered('unbinding a queue', channel.unbindQueue(keeper, topology.eventsExchange, ALL_EVENTS));
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
