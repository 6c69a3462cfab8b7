// The events as an AsyncAPI 3.0 document, made from the schema that the worker checks them with.

import { type Change, changeOf } from '../../shared/change.ts';
import { CHANGE_TYPES, type ChangeType } from '../../shared/contract.ts';
import {
  balanceEvent,
  EVENT_BATCH_CONTENT_TYPE,
  EVENT_CONTENT_TYPE,
  encodeEvent,
  encodeEventBatch,
} from '../../shared/events.ts';
import type { Topology } from '../../shared/topology.ts';
import { z } from '../../shared/zod.ts';
import { EXAMPLE_EPOCH } from '../calls/event-id.ts';
import { completeForm } from './forms.ts';

const EXAMPLE: Change & { traceparent: null } = {
  ...changeOf('alice', 'balance.credited', new Date('2026-11-23T20:24:34.540Z'), {
    ...{ version: 1, epoch: EXAMPLE_EPOCH, previousEpoch: EXAMPLE_EPOCH },
    ...{ asset: 'USD/2', amount: 250, heldChange: 0, balance: 250, held: 0, reference: 'order 1001', actor: 'shop' },
  }),
  traceparent: null,
};

/** @param topology as this service declares it: its names are part of the contract. */
export function asyncApiDocument(version: string, topology: Topology): object {
  const { $schema, ...event } = z.toJSONSchema(balanceEvent, { target: 'draft-7', override: completeForm });
  const common = {
    correlationId: { location: '$message.header#/message_id', description: 'The id of the first event.' },
    headers: {
      type: 'object',
      properties: {
        'x-replayed': { const: true, description: 'Published again on demand; absent otherwise.' },
        traceparent: { type: 'string', description: 'W3C trace context. In a batch each event has its own instead.' },
      },
    },
  };
  const channel = (routingKey: string) => ({
    address: routingKey,
    title: routingKey,
    messages: {
      event: { $ref: '#/components/messages/event' },
      batch: { $ref: '#/components/messages/batch' },
    },
    bindings: {
      amqp: {
        is: 'routingKey',
        exchange: { name: topology.eventsExchange, type: 'topic', durable: true, autoDelete: false, vhost: '/' },
        bindingVersion: '0.3.0',
      },
    },
  });
  const operation = (name: string) => ({
    action: 'send',
    channel: { $ref: `#/channels/${name}` },
    summary:
      'At least once, persistent; in version order per account except around rejections, redelivery and failover.',
    bindings: { amqp: { deliveryMode: 2, mandatory: true, timestamp: true, bindingVersion: '0.3.0' } },
  });
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'highload-balance events',
      version,
      license: { name: 'MIT' },
      description:
        'Every accepted change, published to a topic exchange of RabbitMQ. Bind your own queue. Drop events that are not above the ' +
        'last version you handled for an account, hold events that leave a gap, and report a gap that persists.',
    },
    defaultContentType: EVENT_CONTENT_TYPE,
    channels: Object.fromEntries(CHANGE_TYPES.map((type) => [nameOf(type), channel(type)])),
    operations: Object.fromEntries(CHANGE_TYPES.map((type) => [`publish.${nameOf(type)}`, operation(nameOf(type))])),
    components: {
      messages: {
        event: {
          ...common,
          name: 'event',
          title: 'One change',
          contentType: EVENT_CONTENT_TYPE,
          payload: { $ref: '#/components/schemas/BalanceEvent' },
          examples: [{ name: 'credit', payload: JSON.parse(encodeEvent(EXAMPLE).toString()) }],
        },
        batch: {
          ...common,
          name: 'batch',
          title: 'Several changes, if EVENTS_PER_MESSAGE_MAX is above 1',
          contentType: EVENT_BATCH_CONTENT_TYPE,
          payload: { type: 'array', minItems: 2, items: { $ref: '#/components/schemas/BalanceEvent' } },
          examples: [
            {
              name: 'two credits',
              payload: JSON.parse(encodeEventBatch([EXAMPLE, { ...EXAMPLE, version: 2, balance: 500 }]).toString()),
            },
          ],
        },
      },
      schemas: { BalanceEvent: event },
    },
  };
}

/** A key of the document that needs no escaping in a reference. */
const nameOf = (type: ChangeType) => type.replace('.', '_');
