// A queue, consumed on a channel of its own; what it delivers waits here.
import type { Channel, ConsumeMessage } from 'amqplib';
import { answered, type BrokerSession } from '../shared/broker.ts';

export interface Subscription {
  readonly channel: Channel;
  /** Delivered and not yet taken, oldest first; bounded by the prefetch. */
  readonly waiting: ConsumeMessage[];
  /** Whether something waits, now or within that time; false at once when the session ends. */
  delivered(timeoutMs: number): Promise<boolean>;
  /** What waits here goes back to the queue. */
  close(): Promise<void>;
}

export async function subscribe(session: BrokerSession, queue: string, prefetch: number): Promise<Subscription> {
  const channel = await openChannel(session);
  await answered('setting the prefetch', channel.prefetch(prefetch));
  const waiting: ConsumeMessage[] = [];
  let wake = () => {};
  const onAbort = () => wake();
  session.signal.addEventListener('abort', onAbort);
  const onMessage = (message: ConsumeMessage | null) => {
    if (message) waiting.push(message);
    else session.end(new Error('consumer cancelled by RabbitMQ')); // the queue was deleted, or its node went away
    wake();
  };
  await answered('consuming the queue', channel.consume(queue, onMessage));
  return {
    channel,
    waiting,
    delivered(timeoutMs) {
      if (waiting.length > 0 || session.signal.aborted) return Promise.resolve(waiting.length > 0);
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, timeoutMs, false);
        wake = () => {
          clearTimeout(timer);
          resolve(waiting.length > 0);
        };
      });
    },
    async close() {
      session.signal.removeEventListener('abort', onAbort);
      channel.removeAllListeners('close');
      await answered('closing a channel', channel.close());
    },
  };
}

/** Ends the session when it fails or is closed. */
export async function openChannel(session: BrokerSession): Promise<Channel> {
  const channel = await answered('opening a channel', session.connection.createChannel());
  channel.on('error', session.end);
  channel.on('close', () => session.end(new Error('channel closed')));
  return channel;
}
