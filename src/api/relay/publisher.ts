// Publishes outbox rows on a confirm channel and reports the outcome of each message.
import type { ConfirmChannel } from 'amqplib';
import type { BrokerSession } from '../../shared/broker.ts';
import { eventId } from '../../shared/change.ts';
import { batchOf, EVENT_BATCH_CONTENT_TYPE, EVENT_CONTENT_TYPE, eventText } from '../../shared/events.ts';
import type { TracedSpan, Tracing } from '../../shared/tracing.ts';
import type { OutboxRow } from './outbox.ts';

/**
 * - confirmed: every queue that the message was routed to has it safely
 * - rejected: at least one queue refused it (full, down, or without a majority); others may have it
 * - unroutable: it was routed to no queue
 */
export type PublishOutcome = 'confirmed' | 'rejected' | 'unroutable';

/** Where messages go. */
export interface Destination {
  exchange: string;
  routingKey(row: OutboxRow): string;
  eventsPerMessageMax: number;
}

/** amqplib makes a prototype of them: of the same object that is fast. */
const NO_HEADERS = {};

export interface Publisher {
  /**
   * Publishes rows as one message. Calls back once, unless the session ends first: then they are
   * not confirmed.
   * @param rows one, or several in the order of their positions.
   */
  publish(rows: readonly OutboxRow[], done: (outcome: PublishOutcome) => void): void;
  /** Messages that wait for their confirm. */
  waiting(): number;
  /** Milliseconds since the oldest publish that waits for its confirm; 0 when none does. */
  oldestWaitMs(): number;
}

export function createPublisher(
  channel: ConfirmChannel,
  session: BrokerSession,
  destination: Destination,
  tracing?: Tracing,
): Publisher {
  const returned = new Set<string>();
  const waiting = new Map<number, number>(); // publish number -> time; insertion order is age
  let published = 0;
  // RabbitMQ also confirms messages that it could not route: only the return before the confirm
  // shows it. (If two copies of one event are in flight, only one counts as unroutable; the ledger
  // still lacks the event, so it is published again.)
  channel.on('return', (message) => returned.add(String(message.properties.messageId)));

  return {
    publish(rows, done) {
      const first = rows[0] as OutboxRow;
      const id = eventId(first);
      const routingKey = destination.routingKey(first);
      published += 1;
      const number = published;
      waiting.set(number, performance.now());
      const span = tracing && tracePublish(tracing, destination, rows, routingKey);
      const onConfirm = (error: unknown) => {
        waiting.delete(number);
        endPublish(span, error ? 'rejected' : returned.has(id) ? 'unroutable' : undefined);
        // amqplib fails everything pending when a channel closes.
        if (session.signal.aborted) return;
        done(returned.delete(id) ? 'unroutable' : error ? 'rejected' : 'confirmed');
      };
      const properties = {
        persistent: true,
        mandatory: true,
        messageId: id,
        timestamp: Math.floor(first.createdAt.getTime() / 1000),
      };
      if (rows.length === 1) {
        const traceparent = span?.traceparent ?? first.traceparent;
        const headers = traceparent === null ? NO_HEADERS : { traceparent };
        const message = { ...properties, contentType: EVENT_CONTENT_TYPE, headers };
        channel.publish(destination.exchange, routingKey, Buffer.from(eventOf(first)), message, onConfirm);
      } else {
        // All types in one message keep their order; CC brings it to the queues that are bound for
        // some of them only.
        const CC = [...new Set(rows.map(destination.routingKey))].filter((key) => key !== routingKey);
        const message = { ...properties, contentType: EVENT_BATCH_CONTENT_TYPE, ...(CC.length > 0 && { CC }) };
        channel.publish(destination.exchange, routingKey, batchOf(rows.map(withEvent)), message, onConfirm);
      }
    },
    waiting: () => waiting.size,
    oldestWaitMs() {
      const [oldest] = waiting.values();
      return oldest === undefined ? 0 : performance.now() - oldest;
    },
  };
}

/** Made once, for both tracks. */
function eventOf(row: OutboxRow): string {
  row.event ??= eventText(row);
  return row.event;
}

function withEvent(row: OutboxRow): { event: string; traceparent: string | null } {
  return { event: eventOf(row), traceparent: row.traceparent };
}

function tracePublish(
  tracing: Tracing,
  { exchange }: Destination,
  rows: readonly OutboxRow[],
  routingKey: string,
): TracedSpan | undefined {
  const first = rows[0] as OutboxRow;
  const contexts = rows.map((row) => row.traceparent);
  return tracing.startSpan('producer', `publish ${exchange}`, contexts, {
    'messaging.system': 'rabbitmq',
    'messaging.operation.type': 'send',
    'messaging.operation.name': 'publish',
    'messaging.destination.name': exchange,
    'messaging.rabbitmq.destination.routing_key': routingKey,
    'messaging.message.id': eventId(first),
  });
}

function endPublish(span: TracedSpan | undefined, failure: string | undefined): void {
  if (failure) span?.fail(failure);
  span?.end();
}
