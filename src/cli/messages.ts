// Shared by commands that take messages from one queue and publish them to another.
import type { Channel, ConsumeMessage, Options } from 'amqplib';
import { answered } from '../shared/broker.ts';
import { createWakeUp } from '../shared/wake-up.ts';

/** Of the messages taken at a time. Anyone who may publish there decides how large one is, up to what RabbitMQ takes. */
const PAGE_BYTES_MAX = 64 * 1024 * 1024;

/**
 * The next messages of a queue, at most `limit`: fewer if none came for `silenceMs`, because
 * RabbitMQ does not distinguish an empty queue from a slow one, or if they are large; at least one
 * if there is one. Unacknowledged messages return to the queue when the channel ends, and not
 * before.
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
  /** Also received, and returned to the queue: without the content. */
  const beyond: ConsumeMessage[] = [];
  let bytes = 0;
  const arrivals = createWakeUp();
  let isOver = false;
  const { consumerTag } = await answered(
    'consuming the queue',
    channel.consume(queue, (message) => {
      bytes += message?.content.length ?? 0;
      if (message && page.length > 0 && bytes > PAGE_BYTES_MAX) beyond.push({ ...message, content: Buffer.alloc(0) });
      else if (message) page.push(message);
      else isOver = true; // RabbitMQ cancelled the consumer
      arrivals.wake();
    }),
  );
  while (page.length < limit && beyond.length === 0 && !isOver) isOver = !(await arrivals.wokenOr(silenceMs));
  await answered('ending the consumer', channel.cancel(consumerTag));
  for (const message of beyond) channel.nack(message, false, true); // not before: the consumer would get it again
  return page;
}

/** To publish a message again: without the notes on its death, and without CC, which would reach other queues. */
export function propertiesOf({ properties }: ConsumeMessage): Options.Publish & { headers: Record<string, unknown> } {
  const { messageId, contentType, timestamp } = properties;
  const traceparent = properties.headers?.traceparent;
  const headers = traceparent === undefined ? {} : { traceparent };
  return { persistent: true, mandatory: true, messageId, contentType, timestamp, headers };
}
