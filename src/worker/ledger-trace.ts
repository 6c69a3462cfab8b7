// Spans of the worker: one for each traced message, in the trace of its request, and one for the statement that they share.
import type { ConsumeMessage } from 'amqplib';
import { EVENT_BATCH_CONTENT_TYPE } from '../shared/events.ts';
import type { Topology } from '../shared/topology.ts';
import type { TracedSpan, Tracing } from '../shared/tracing.ts';

/** In JSON text: inside of a string the quotes would be escaped, so this is always a member. */
const TRACEPARENT_MEMBER = /"traceparent":"([0-9a-f-]{55})"/g;

export function traceDelivery(
  tracing: Tracing,
  { eventsExchange, ledgerQueue }: Topology,
  message: ConsumeMessage,
): TracedSpan | undefined {
  const { exchange = eventsExchange, routingKey } = message.fields;
  return tracing.startSpan('consumer', `process ${ledgerQueue}`, contextsOf(message), {
    'messaging.system': 'rabbitmq',
    'messaging.operation.type': 'process',
    'messaging.operation.name': 'process',
    'messaging.destination.name': `${exchange}:${routingKey}:${ledgerQueue}`,
    'messaging.rabbitmq.destination.routing_key': routingKey,
    'messaging.message.id': String(message.properties.messageId),
  });
}

export function traceLedger(
  tracing: Tracing,
  spans: readonly (TracedSpan | undefined)[],
  rows: number,
): TracedSpan | undefined {
  const contexts = spans.map((span) => span?.traceparent ?? null);
  return tracing.startSpan('client', 'INSERT ledger', contexts, {
    'db.system.name': 'postgresql',
    'db.operation.name': 'INSERT',
    'db.collection.name': 'ledger',
    'db.operation.batch.size': rows,
  });
}

function contextsOf({ properties, content }: ConsumeMessage): (string | null)[] {
  if (properties.contentType === EVENT_BATCH_CONTENT_TYPE) {
    return Array.from(content.toString().matchAll(TRACEPARENT_MEMBER), ([, traceparent]) => traceparent ?? null);
  }
  const header: unknown = properties.headers?.traceparent;
  return [typeof header === 'string' ? header : null];
}
