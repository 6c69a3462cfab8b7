// Publishes outbox rows on a confirm channel and says of each what the broker made of it.
import type { ConfirmChannel } from 'amqplib';
import type { BrokerSession } from '../shared/broker.ts';
import { EVENT_CONTENT_TYPE, encodeEvent, eventId, eventType } from '../shared/events.ts';
import type { Topology } from '../shared/topology.ts';
import type { OutboxRow } from './outbox.ts';

/**
 * - confirmed: every queue that is bound has it safely
 * - rejected: at least one queue refused it (full, or without a majority); others may have it
 * - unroutable: no queue is bound at all, not even the ledger's
 */
export type PublishOutcome = 'confirmed' | 'rejected' | 'unroutable';

export interface Publisher {
  /** Calls back once for every row, unless the session ends first: then the row is simply not confirmed. */
  publish(row: OutboxRow, done: (outcome: PublishOutcome) => void): void;
  /** Milliseconds since the oldest publish that waits for its confirm; 0 when none does. */
  oldestWaitMs(): number;
}

export function createPublisher(channel: ConfirmChannel, session: BrokerSession, topology: Topology): Publisher {
  const returned = new Set<string>();
  const waiting = new Map<number, number>(); // publish number -> time; insertion order is age
  let published = 0;
  // RabbitMQ confirms what it could not route: only the return before the confirm tells.
  channel.on('return', (message) => returned.add(String(message.properties.messageId)));

  return {
    publish(row, done) {
      const id = eventId(row.accountId, row.version);
      published += 1;
      const number = published;
      waiting.set(number, Date.now());
      const onConfirm = (error: unknown) => {
        waiting.delete(number);
        if (session.signal.aborted) return; // amqplib fails all that is open when a channel closes
        done(returned.delete(id) ? 'unroutable' : error ? 'rejected' : 'confirmed');
      };
      channel.publish(
        topology.eventsExchange,
        eventType(row.amount),
        encodeEvent(row),
        {
          persistent: true,
          mandatory: true,
          messageId: id,
          contentType: EVENT_CONTENT_TYPE,
          timestamp: Math.floor(row.createdAt.getTime() / 1000),
          headers: row.traceparent === null ? {} : { traceparent: row.traceparent },
        },
        onConfirm,
      );
    },
    oldestWaitMs() {
      const [oldest] = waiting.values();
      return oldest === undefined ? 0 : Date.now() - oldest;
    },
  };
}
