// Describes a dead letter for a person: why it is dead, since when, and which change it claims to
// report.
import { createHash } from 'node:crypto';
import type { Message } from 'amqplib';
import { decodeEvents } from '../shared/events.ts';
import { printable } from './output.ts';

/**
 * - delivery-limit: returned to the ledger queue too often; the message itself is not known to be
 *   wrong
 * - expired: waited in the ledger queue for longer than a policy of the broker, or its publisher, allowed
 * - maxlen: a policy of the broker made the ledger queue too short for it
 * - forged: the worker refused it: an event that matches no accepted change
 * - malformed: the worker refused it: not an event, or larger than a message of events can be
 * - unknown: not from the ledger queue; it was published to the dead letters directly, or by
 *   another queue
 */
export const REASONS = ['delivery-limit', 'expired', 'maxlen', 'forged', 'malformed', 'unknown'] as const;
export type Reason = (typeof REASONS)[number];

const EVENTS_SHOWN_MAX = 10;
const EXCERPT_CHARACTERS_MAX = 200;

export interface DeadLetter {
  /** Of its content: letters with the same content have the same id and are interchangeable. */
  id: string;
  reason: Reason;
  /** UTC; null where RabbitMQ did not note it, or another publisher wrote something that is no time. */
  deadAt: string | null;
  /** The changes that its events claim to report; the first ten. */
  events: { accountId: string; version: number }[];
  eventCount: number;
  bytes: number;
  /** The first 200 characters, fit for a terminal. */
  excerpt: string;
}

/** @param ledgerQueue the queue that letters of ours come from. */
export function describeDeadLetter(
  { content, properties }: Pick<Message, 'content' | 'properties'>,
  ledgerQueue: string,
): DeadLetter {
  const events = decodeEvents(content);
  const [death] = deathsOf(properties.headers);
  return {
    id: createHash('sha256').update(content).digest('hex').slice(0, 12),
    reason: death?.queue === ledgerQueue ? reasonOf(death.reason, events !== undefined) : 'unknown',
    deadAt: timeOf(death?.time?.value),
    events: (events ?? []).slice(0, EVENTS_SHOWN_MAX).map(({ accountId, version }) => ({ accountId, version })),
    eventCount: events?.length ?? 0,
    bytes: content.length,
    excerpt: printable(content.toString('utf8', 0, 4 * EXCERPT_CHARACTERS_MAX)).slice(0, EXCERPT_CHARACTERS_MAX),
  };
}

/** Whether the worker will refuse it again. */
export function comesBack(reason: Reason): boolean {
  return reason === 'forged' || reason === 'malformed';
}

interface Death {
  /** That it died in. */
  queue?: string;
  reason?: string;
  /** Seconds. */
  time?: { value: number };
}

/** Anyone who may publish to the queue can write any value into the header, and RabbitMQ keeps it. */
function timeOf(seconds: unknown): string | null {
  const time = new Date(typeof seconds === 'number' ? seconds * 1000 : Number.NaN);
  return Number.isNaN(time.getTime()) ? null : time.toISOString();
}

/** What RabbitMQ notes of a death, the latest first. https://www.rabbitmq.com/docs/dlx#effects */
function deathsOf(headers: Record<string, unknown> | undefined): Death[] {
  const deaths = headers?.['x-death'];
  return Array.isArray(deaths) ? deaths : [];
}

/** By what RabbitMQ calls it. */
const REASON_BY_DEATH: Record<string, Reason> = {
  delivery_limit: 'delivery-limit',
  expired: 'expired',
  maxlen: 'maxlen',
};

function reasonOf(death: string | undefined, isEvent: boolean): Reason {
  if (death === 'rejected') return isEvent ? 'forged' : 'malformed'; // the worker rejects nothing else
  return REASON_BY_DEATH[death ?? ''] ?? 'unknown';
}
