// What commands have in common that take messages from one queue and publish them to another.
import { EventEmitter, once } from 'node:events';
import type { Channel, ConsumeMessage, Options } from 'amqplib';
import { answered } from '../shared/broker.ts';

/**
 * The next messages of a queue, at most `limit`: fewer when none came for `silenceMs`, because RabbitMQ does not tell a queue that
 * has no more from one that is slow. What is not acknowledged goes back when the channel ends, and not before.
 */
export async function takeMessages(
  channel: Channel,
  queue: string,
  limit: number,
  silenceMs: number,
): Promise<ConsumeMessage[]> {
  // A consumer for each page: getting one by one costs a quorum queue a write to disk for each.
  await answered('setting the prefetch', channel.prefetch(Math.max(1, limit)));
  const page: ConsumeMessage[] = [];
  const arrivals = new EventEmitter();
  const { consumerTag } = await answered(
    'consuming the queue',
    channel.consume(queue, (message) => {
      if (message) page.push(message);
      arrivals.emit('one');
    }),
  );
  for (let had = -1; had < page.length && page.length < limit; ) {
    had = page.length;
    await once(arrivals, 'one', { signal: AbortSignal.timeout(silenceMs) }).catch(() => {});
  }
  await answered('ending the consumer', channel.cancel(consumerTag));
  return page;
}

/** To publish a message again: without the notes on its death, and without CC, which would reach other queues. */
export function propertiesOf({ properties }: ConsumeMessage): Options.Publish & { headers: Record<string, unknown> } {
  const { messageId, contentType, timestamp } = properties;
  const traceparent = properties.headers?.traceparent;
  const headers = traceparent === undefined ? {} : { traceparent };
  return { persistent: true, mandatory: true, messageId, contentType, timestamp, headers };
}
