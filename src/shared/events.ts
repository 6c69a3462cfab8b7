// The event contract: what stands on RabbitMQ for every accepted change. docs/events.md describes it for subscribers.
import { z } from 'zod';
import { AMOUNT_MAX, accountId, actor, amount, reference, timestamp, version } from './balance.ts';
import type { BalanceEvent } from './contract.ts';

export const EVENT_CONTENT_TYPE = 'application/cloudevents+json';
/** A message with several events: a JSON array of them. */
export const EVENT_BATCH_CONTENT_TYPE = 'application/cloudevents-batch+json';
export const EVENT_SOURCE = '/highload-balance';

/** An accepted change, as the outbox holds it and the ledger keeps it. */
export interface BalanceChange {
  accountId: string;
  version: number;
  amount: number;
  /** The balance that this change left. */
  balance: number;
  reference: string | null;
  /** Name of the client whose API key signed the request, null where none was asked for. */
  actor: string | null;
  createdAt: Date;
}

const type = z.enum(['balance.credited', 'balance.debited']);

/** The message body: a CloudEvents 1.0 event in the JSON format. Unknown members are refused: we write all of it. */
export const balanceEvent = z
  .strictObject({
    specversion: z.literal('1.0'),
    id: z.string(),
    source: z.literal(EVENT_SOURCE),
    type,
    subject: accountId,
    time: timestamp,
    datacontenttype: z.literal('application/json'),
    /** In a batch; a message with one event has it as a header. */
    traceparent: z.string().optional(),
    data: z.strictObject({
      accountId,
      version,
      amount,
      balance: z.int().min(-AMOUNT_MAX).max(AMOUNT_MAX),
      reference: reference.optional(),
      actor: actor.optional(),
    }),
  })
  .refine(
    (event) =>
      event.id === eventId(event.data.accountId, event.data.version) &&
      event.subject === event.data.accountId &&
      event.type === eventType(event.data.amount),
    'id, subject and type must agree with data',
  );

/** Unique and stable: the same change always has the same id, so consumers can deduplicate by it. */
export function eventId(account: string, changeVersion: number): string {
  return `${account}:${changeVersion}`;
}

/** Also the routing key. */
export function eventType(changeAmount: number): z.infer<typeof type> {
  return changeAmount > 0 ? 'balance.credited' : 'balance.debited';
}

/** The body of a message with one event. */
export function encodeEvent(change: BalanceChange): Buffer {
  return Buffer.from(JSON.stringify(toEvent(change)));
}

/** The body of a message with several events. */
export function encodeEventBatch(changes: readonly (BalanceChange & { traceparent: string | null })[]): Buffer {
  const events = changes.map((change) =>
    change.traceparent === null ? toEvent(change) : { ...toEvent(change), traceparent: change.traceparent },
  );
  return Buffer.from(JSON.stringify(events));
}

function toEvent(change: BalanceChange): BalanceEvent {
  return {
    specversion: '1.0',
    id: eventId(change.accountId, change.version),
    source: EVENT_SOURCE,
    type: eventType(change.amount),
    subject: change.accountId,
    time: change.createdAt.toISOString(),
    datacontenttype: 'application/json',
    data: {
      accountId: change.accountId,
      version: change.version,
      amount: change.amount,
      balance: change.balance,
      ...(change.reference === null ? {} : { reference: change.reference }),
      ...(change.actor === null ? {} : { actor: change.actor }),
    },
  };
}

/** The changes in a message body of either form, or undefined when it is not all events of ours. Never throws. */
export function decodeEvents(body: Buffer): BalanceChange[] | undefined {
  let json: unknown;
  try {
    json = JSON.parse(body.toString());
  } catch {
    return undefined;
  }
  if (Array.isArray(json) && json.length === 0) return undefined;
  const changes: BalanceChange[] = [];
  for (const one of Array.isArray(json) ? json : [json]) {
    const event = balanceEvent.safeParse(one);
    if (!event.success) return undefined;
    const { data, time } = event.data;
    changes.push({ ...data, reference: data.reference ?? null, actor: data.actor ?? null, createdAt: new Date(time) });
  }
  return changes;
}
