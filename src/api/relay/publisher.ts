// Publishes outbox rows on a confirm channel and says of each what the broker made of it.
import type { ConfirmChannel } from 'amqplib';
import type { BrokerSession } from '../../shared/broker.ts';
import { eventId } from '../../shared/change.ts';
import { EVENT_BATCH_CONTENT_TYPE, EVENT_CONTENT_TYPE, encodeEvent, encodeEventBatch } from '../../shared/events.ts';
import type { Topology } from '../../shared/topology.ts';
import type { TracedSpan, Tracing } from '../../shared/tracing.ts';
import type { OutboxRow } from './outbox.ts';

/**
 * - confirmed: every queue that is bound has it safely
 * - rejected: at least one queue refused it (full, or without a majority); others may have it
 * - unroutable: no queue is bound at all, not even the ledger's
 */
export type PublishOutcome = 'confirmed' | 'rejected' | 'unroutable';

export interface Publisher {
  /**
   * Publishes rows as one message. Calls back once, unless the session ends first: then they are simply not confirmed.
   * @param rows one, or several in the order of their positions.
   */
  publish(rows: readonly OutboxRow[], done: (outcome: PublishOutcome) => void): void;
  /** Milliseconds since the oldest publish that waits for its confirm; 0 when none does. */
  oldestWaitMs(): number;
}

export function createPublisher(
  channel: ConfirmChannel,
  session: BrokerSession,
  topology: Topology,
  tracing?: Tracing,
): Publisher {
  const returned = new Set<string>();
  const waiting = new Map<number, number>(); // publish number -> time; insertion order is age
  let published = 0;
  // RabbitMQ confirms what it could not route: only the return before the confirm tells. (Of two copies of one event in
  // flight, only one is then taken for unroutable; the ledger lacks the event all the same, so it comes again.)
  channel.on('return', (message) => returned.add(String(message.properties.messageId)));

  return {
    publish(rows, done) {
      const first = rows[0] as OutboxRow;
      const id = eventId(first);
      published += 1;
      const number = published;
      waiting.set(number, performance.now());
      const span = tracing && tracePublish(tracing, topology, rows);
      const onConfirm = (error: unknown) => {
        waiting.delete(number);
        endPublish(span, error ? 'rejected' : returned.has(id) ? 'unroutable' : undefined);
        if (session.signal.aborted) return; // amqplib fails all that is open when a channel closes
        done(returned.delete(id) ? 'unroutable' : error ? 'rejected' : 'confirmed');
      };
      const properties = {
        persistent: true,
        mandatory: true,
        messageId: id,
        timestamp: Math.floor(first.createdAt.getTime() / 1000),
      };
      const routingKey = first.type;
      if (rows.length === 1) {
        const traceparent = span?.traceparent ?? first.traceparent;
        const headers = traceparent === null ? {} : { traceparent };
        const message = { ...properties, contentType: EVENT_CONTENT_TYPE, headers };
        channel.publish(topology.eventsExchange, routingKey, encodeEvent(first), message, onConfirm);
      } else {
        // All types in one message keep their order; CC brings it to the queues that are bound for some of them only.
        const CC = [...new Set(rows.map(({ type }) => type))].filter((type) => type !== routingKey);
        const message = { ...properties, contentType: EVENT_BATCH_CONTENT_TYPE, ...(CC.length > 0 && { CC }) };
        channel.publish(topology.eventsExchange, routingKey, encodeEventBatch(rows), message, onConfirm);
      }
    },
    oldestWaitMs() {
      const [oldest] = waiting.values();
      return oldest === undefined ? 0 : performance.now() - oldest;
    },
  };
}

function tracePublish(tracing: Tracing, topology: Topology, rows: readonly OutboxRow[]): TracedSpan | undefined {
  const first = rows[0] as OutboxRow;
  const contexts = rows.map((row) => row.traceparent);
  return tracing.startSpan('producer', `publish ${topology.eventsExchange}`, contexts, {
    'messaging.system': 'rabbitmq',
    'messaging.operation.type': 'send',
    'messaging.operation.name': 'publish',
    'messaging.destination.name': topology.eventsExchange,
    'messaging.rabbitmq.destination.routing_key': first.type,
    'messaging.message.id': eventId(first),
  });
}

function endPublish(span: TracedSpan | undefined, failure: string | undefined): void {
  if (failure) span?.fail(failure);
  span?.end();
}
