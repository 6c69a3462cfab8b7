// What a dead letter is to a person: why it is dead, since when, and which change it claims to tell of.
import { createHash } from 'node:crypto';
import type { Message } from 'amqplib';
import { decodeEvents } from '../shared/events.ts';

/**
 * - delivery-limit: returned to the queue too often; nothing is wrong with it as far as is known
 * - forged: an event that no accepted change stands behind
 * - malformed: no event at all
 * - unknown: not from the ledger queue; somebody published it to the dead letters
 */
export const REASONS = ['delivery-limit', 'forged', 'malformed', 'unknown'] as const;
export type Reason = (typeof REASONS)[number];

const EVENTS_SHOWN_MAX = 10;
const EXCERPT_CHARACTERS_MAX = 200;

export interface DeadLetter {
  /** Of its content: letters with the same content have the same id, and are the same to everybody. */
  id: string;
  reason: Reason;
  /** UTC; null where RabbitMQ did not note it. */
  deadAt: string | null;
  /** What the events in it claim to tell of; the first ten. */
  events: { accountId: string; version: number }[];
  eventCount: number;
  bytes: number;
  /** The first 200 characters, fit for a terminal. */
  excerpt: string;
}

export function describeDeadLetter({ content, properties }: Pick<Message, 'content' | 'properties'>): DeadLetter {
  const events = decodeEvents(content);
  const [death] = deathsOf(properties.headers);
  return {
    id: createHash('sha256').update(content).digest('hex').slice(0, 12),
    reason: reasonOf(death?.reason, events !== undefined),
    deadAt: death?.time ? new Date(death.time.value * 1000).toISOString() : null,
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
  reason?: string;
  /** Seconds. */
  time?: { value: number };
}

/** What RabbitMQ notes of a death, the latest first. https://www.rabbitmq.com/docs/dlx#effects */
function deathsOf(headers: Record<string, unknown> | undefined): Death[] {
  const deaths = headers?.['x-death'];
  return Array.isArray(deaths) ? deaths : [];
}

function reasonOf(death: string | undefined, isEvent: boolean): Reason {
  if (death === 'delivery_limit') return 'delivery-limit';
  if (death !== 'rejected') return 'unknown';
  return isEvent ? 'forged' : 'malformed'; // the worker rejects nothing else
}

/** Whoever wrote the letter may have meant it for the terminal of whoever reads it. */
function printable(text: string): string {
  return text.replace(/\p{C}/gu, (character) => `\\u{${(character.codePointAt(0) as number).toString(16)}}`);
}
