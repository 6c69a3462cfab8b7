// What the broker knows about the worker's queue, asked on a connection of its own.
import amqp from 'amqplib';
import { brokerTlsOptions } from '../shared/broker-tls.ts';

const CONNECT_TIMEOUT_MS = 5_000;
const ANSWER_TIMEOUT_MS = 5_000;

export interface QueueState {
  /** Messages that wait; those on their way to a consumer do not count. */
  messages: number;
  consumers: number;
}

/** Undefined when there is no such queue, or when the broker does not answer in time. */
export async function queueState(amqpUrl: string, queue: string): Promise<QueueState | undefined> {
  const asking = ask(amqpUrl, queue);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), CONNECT_TIMEOUT_MS + ANSWER_TIMEOUT_MS);
  });
  try {
    return await Promise.race([asking.catch(() => undefined), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function ask(amqpUrl: string, queue: string): Promise<QueueState> {
  const connection = await amqp.connect(amqpUrl, { timeout: CONNECT_TIMEOUT_MS, ...brokerTlsOptions(amqpUrl) });
  connection.on('error', () => undefined);
  try {
    const channel = await connection.createChannel();
    channel.on('error', () => undefined);
    const { messageCount, consumerCount } = await channel.checkQueue(queue);
    return { messages: messageCount, consumers: consumerCount };
  } finally {
    void connection.close().catch(() => undefined);
  }
}
