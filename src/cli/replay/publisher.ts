// Publishes past changes on a confirm channel, no faster than asked for, and knows when RabbitMQ has them safely.
import { setTimeout as delay } from 'node:timers/promises';
import type { ChannelModel, ConfirmChannel, Options } from 'amqplib';
import { answered } from '../../shared/broker.ts';
import { type Change, eventId } from '../../shared/change.ts';
import { openChannel } from '../../shared/channel.ts';
import { SettingsError } from '../../shared/config.ts';
import { EVENT_CONTENT_TYPE, encodeEvent } from '../../shared/events.ts';

/** Messages on their way at a time. */
const IN_FLIGHT_MAX = 1000;
/** A subscriber's full queue (reject-publish), or a broker short of memory, may take this long. */
const REFUSED_MAX_MS = 10_000;
const REFUSED_PAUSE_MS = 500;

export interface Target {
  exchange: string;
  /** Undefined: the type of the event. */
  routingKey: string | undefined;
}

export interface Message {
  routingKey: string;
  content: Buffer;
  properties: Options.Publish;
}

export interface ReplayPublisher {
  readonly channel: ConfirmChannel;
  /**
   * Resolves when RabbitMQ has all of these safely. @throws when it does not accept them, with what
   * to change.
   * @param taken called periodically with how many it has.
   */
  publish(messages: readonly Message[], taken?: (count: number) => void): Promise<void>;
}

/** A change as its original message, plus the mark that it is a replay. */
export function replayed(change: Change): Message {
  return {
    routingKey: change.type,
    content: encodeEvent(change),
    properties: {
      persistent: true,
      mandatory: true,
      contentType: EVENT_CONTENT_TYPE,
      messageId: eventId(change),
      timestamp: Math.floor(change.createdAt.getTime() / 1000),
      headers: { 'x-replayed': true },
    },
  };
}

/** @param rate events a second at most. */
export async function createReplayPublisher(
  connection: ChannelModel,
  { exchange, routingKey }: Target,
  rate: number,
  signal: AbortSignal,
): Promise<ReplayPublisher> {
  const channel: ConfirmChannel = await openChannel(connection.createConfirmChannel());
  /** Why the channel is no more: the error comes first, and says more. */
  let ended: Error | undefined;
  for (const from of [channel, connection]) {
    from.on('error', (error) => (ended ??= error));
    from.on('close', () => (ended ??= new Error('the connection was lost')));
  }
  let returned = false;
  channel.on('return', () => {
    returned = true;
  });
  let blockedReason: string | undefined;
  connection.on('blocked', (reason) => {
    blockedReason = reason;
  });
  connection.on('unblocked', () => {
    blockedReason = undefined;
  });
  /** When the next message may go. */
  let dueMs = performance.now();

  /** @returns those that were refused. */
  async function once(messages: readonly Message[]): Promise<Message[]> {
    const refused: Message[] = [];
    const confirms = messages.map(
      (message) =>
        new Promise<void>((resolve) => {
          channel.publish(exchange, routingKey ?? message.routingKey, message.content, message.properties, (error) => {
            if (error) refused.push(message);
            resolve();
          });
        }),
    );
    const all = Promise.all(confirms);
    const deadlineMs = performance.now() + REFUSED_MAX_MS;
    for (;;) {
      try {
        await answered('taking the events', all);
        return refused;
      } catch (error) {
        if (blockedReason === undefined || performance.now() > deadlineMs) throw takesNothing(error as Error);
      }
    }
  }

  function takesNothing(error: Error): Error {
    if (blockedReason === undefined) return error;
    return new SettingsError(`RabbitMQ accepts no messages at the moment (${blockedReason}). Try again later.`);
  }

  async function publishPart(messages: readonly Message[]): Promise<void> {
    const deadlineMs = performance.now() + REFUSED_MAX_MS;
    for (let open = messages; open.length > 0; ) {
      open = await once(open);
      if (ended) throw ended; // amqplib calls everything refused then
      // RabbitMQ also confirms messages that it could not route: only the return shows it, and
      // comes first. For an exchange it means that no queue is bound for events of this type.
      if (returned && routingKey !== undefined) {
        throw new SettingsError(`The queue ${routingKey} no longer exists.`);
      }
      if (open.length === 0) return;
      if (performance.now() > deadlineMs)
        throw new SettingsError('A queue refuses these events: it is full. Make room in it.');
      await delay(REFUSED_PAUSE_MS);
    }
  }

  return {
    channel,
    async publish(messages, taken) {
      // A tenth of a second's worth at a time is smooth enough for any consumer.
      const portion = Math.min(IN_FLIGHT_MAX, Math.max(1, Math.floor(rate / 10)));
      for (let at = 0; at < messages.length; at += portion) {
        const now = performance.now();
        dueMs = Math.max(dueMs, now - 100);
        await delay(Math.max(0, dueMs - now), undefined, { signal });
        const part = messages.slice(at, at + portion);
        dueMs += (part.length / rate) * 1000;
        await publishPart(part);
        taken?.(at + part.length);
      }
    },
  };
}
