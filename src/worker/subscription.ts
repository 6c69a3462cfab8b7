// A queue, consumed on a channel of its own; what it delivers waits here.
import type { Channel, ConsumeMessage } from 'amqplib';
import { answered, type BrokerSession } from '../shared/broker.ts';
import { openChannel } from '../shared/channel.ts';
import { MESSAGE_BYTES_MAX } from '../shared/message-bounds.ts';
import { createWakeUp } from '../shared/wake-up.ts';

export interface Subscription {
  readonly channel: Channel;
  /**
   * Delivered and not yet taken, oldest first: at most as many as the prefetch, each bounded in
   * size.
   */
  readonly waiting: ConsumeMessage[];
  /** Whether something waits, now or within that time; false at once when the session ends. */
  delivered(timeoutMs: number): Promise<boolean>;
  /** Returns the waiting messages to the queue. */
  close(): Promise<void>;
}

export async function subscribe(session: BrokerSession, queue: string, prefetch: number): Promise<Subscription> {
  const channel = await openChannel(session.connection.createChannel(), session);
  await answered('setting the prefetch', channel.prefetch(prefetch));
  const waiting: ConsumeMessage[] = [];
  const arrivals = createWakeUp();
  session.signal.addEventListener('abort', arrivals.wake);
  const onMessage = (message: ConsumeMessage | null) => {
    if (message) waiting.push(message.content.length > MESSAGE_BYTES_MAX ? withoutContent(message) : message);
    else session.end(new Error('consumer cancelled by RabbitMQ')); // the queue was deleted, or its node went down
    arrivals.wake();
  };
  await answered('consuming the queue', channel.consume(queue, onMessage));
  return {
    channel,
    waiting,
    async delivered(timeoutMs) {
      for (let isOver = false; waiting.length === 0 && !session.signal.aborted && !isOver; )
        isOver = !(await arrivals.wokenOr(timeoutMs));
      return waiting.length > 0;
    },
    async close() {
      session.signal.removeEventListener('abort', arrivals.wake);
      channel.removeAllListeners('close');
      await answered('closing a channel', channel.close());
    },
  };
}

/** Replaces a message too large to be ours: refused like every empty message. */
function withoutContent(message: ConsumeMessage): ConsumeMessage {
  return { ...message, content: Buffer.alloc(0) };
}
