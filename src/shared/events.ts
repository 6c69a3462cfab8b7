// The event contract: the message on RabbitMQ for every change. docs/events.md describes it for
// subscribers.

import {
  AMOUNT_MAX,
  accountId,
  accountStatus,
  actor,
  asset,
  epoch,
  HOLD_STATUSES,
  holdId,
  maxBalance,
  overdraftLimit,
  reference,
  timestamp,
  version,
} from './balance.ts';
import { type Change, changeBody, changeOf, eventId } from './change.ts';
import { type BalanceEvent, CHANGE_TYPES } from './contract.ts';
import { isWithinBounds, MESSAGE_EVENTS_MAX } from './message-bounds.ts';
import { z } from './zod.ts';

export const EVENT_CONTENT_TYPE = 'application/cloudevents+json';
/** A message with several events: a JSON array of them. */
export const EVENT_BATCH_CONTENT_TYPE = 'application/cloudevents-batch+json';
export const EVENT_SOURCE = '/highload-balance';

const minorUnits = z.int().min(-AMOUNT_MAX).max(AMOUNT_MAX);
/** An event id, or that of a transfer. A separator in it would shift the texts of other events in a batch, see array-literals.ts. */
const changeId = z.string().regex(/^[A-Za-z0-9._:-]{1,128}$/);

/** The fields of a change in an event, see {@link changeBody}. */
export const changeMembers = {
  version,
  epoch,
  previousEpoch: epoch.optional(),
  asset,
  amount: minorUnits,
  heldChange: minorUnits,
  balance: minorUnits,
  held: minorUnits.min(0),
  reference: reference.optional(),
  actor: actor.optional(),
  metadata: z.record(z.string(), z.string()).optional(),
  transferId: changeId.optional(),
  reverses: changeId.optional(),
  hold: z
    .strictObject({
      id: holdId,
      status: z.enum(HOLD_STATUSES),
      remaining: minorUnits.min(0),
      expiresAt: timestamp.optional(),
    })
    .optional(),
  limits: z.strictObject({ overdraftLimit, status: accountStatus, maxBalance: maxBalance.optional() }).optional(),
};

/** The message body: a CloudEvents 1.0 event in the JSON format. Unknown members are refused: we write all of it. */
export const balanceEvent = z
  .strictObject({
    specversion: z.literal('1.0'),
    id: z.string(),
    source: z.literal(EVENT_SOURCE),
    /** Also the routing key. */
    type: z.enum(CHANGE_TYPES),
    subject: accountId,
    time: timestamp,
    datacontenttype: z.literal('application/json'),
    /** In a batch; a message with one event has it as a header. */
    traceparent: z.string().optional(),
    data: z.strictObject({ accountId, ...changeMembers }),
  })
  .refine(
    ({ id, subject, data }) => id === eventId(data) && subject === data.accountId,
    'id and subject must agree with data',
  );

/** The body of a message with one event. */
export function encodeEvent(change: Change): Buffer {
  return Buffer.from(eventText(change));
}

/** The body of a message with several events: {@link MESSAGE_EVENTS_MAX} at most. */
export function encodeEventBatch(changes: readonly (Change & { traceparent: string | null })[]): Buffer {
  return batchOf(changes.map((change) => ({ event: eventText(change), traceparent: change.traceparent })));
}

/** An event as JSON. */
export function eventText(change: Change): string {
  return JSON.stringify(toEvent(change));
}

/** The body of a message with several events that are JSON already. */
export function batchOf(events: readonly { event: string; traceparent: string | null }[]): Buffer {
  const texts = events.map(({ event, traceparent }) =>
    traceparent === null ? event : `${event.slice(0, -1)},"traceparent":${JSON.stringify(traceparent)}}`,
  );
  return Buffer.from(`[${texts.join(',')}]`);
}

function toEvent(change: Change): BalanceEvent {
  return {
    specversion: '1.0',
    id: eventId(change),
    source: EVENT_SOURCE,
    type: change.type,
    subject: change.accountId,
    time: change.createdAt.toISOString(),
    datacontenttype: 'application/json',
    data: { accountId: change.accountId, ...changeBody(change) },
  };
}

/**
 * The events in a message body of either form, in order, or undefined unless all are valid events
 * of ours. Never throws.
 */
export function eventsIn(body: Buffer): BalanceEvent[] | undefined {
  if (!isWithinBounds(body)) return undefined;
  let json: unknown;
  try {
    json = JSON.parse(body.toString());
  } catch {
    return undefined;
  }
  const events: unknown[] = Array.isArray(json) ? json : [json];
  if (events.length === 0 || events.length > MESSAGE_EVENTS_MAX) return undefined;
  return events.every((event) => balanceEvent.safeParse(event).success) ? (events as BalanceEvent[]) : undefined;
}

/** The changes that these events report. Never throws. */
export function decodeEvents(body: Buffer): Change[] | undefined {
  return eventsIn(body)?.map(({ type, time, data: { accountId: id, ...change } }) =>
    changeOf(id, type, new Date(time), change),
  );
}
