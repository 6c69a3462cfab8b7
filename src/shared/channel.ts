// Opens a channel to RabbitMQ: in a bounded time, and with listeners, because an error without one is an uncaught exception.
import type { Channel, ChannelModel } from 'amqplib';
import { answered, type BrokerSession } from './broker.ts';

/**
 * @param channel of createChannel() or createConfirmChannel().
 * @param session ends with it. Without one, a request that a broken channel leaves unanswered fails
 * with the reason.
 */
export async function openChannel<Kind extends Channel>(
  channel: PromiseLike<Kind>,
  session?: BrokerSession,
): Promise<Kind> {
  const opened = await answered('opening a channel', channel);
  opened.on('error', (error: Error) => session?.end(error));
  opened.on('close', () => session?.end(new Error('channel closed')));
  return opened;
}

/**
 * Makes one request on a separate channel, because RabbitMQ closes the channel if it refuses the
 * request.
 */
export async function askOnce<Answer>(
  connection: ChannelModel,
  what: string,
  ask: (channel: Channel) => PromiseLike<Answer>,
): Promise<Answer> {
  const channel = await openChannel(connection.createChannel());
  const answer = await answered(what, ask(channel));
  await answered('closing a channel', channel.close());
  return answer;
}
