// A message as events. Both forms: one event, or a batch of them.
import type { ConsumeMessage } from 'amqplib';
import type { BalanceEvent } from '../shared/contract.ts';
import { isWithinBounds, MESSAGE_EVENTS_MAX } from '../shared/message-bounds.ts';

/** @returns undefined when it is not all events of the service. Never throws. */
export function eventsIn({ content, properties }: ConsumeMessage): BalanceEvent[] | undefined {
  if (!isWithinBounds(content)) return undefined;
  let json: unknown;
  try {
    json = JSON.parse(content.toString());
  } catch {
    return undefined;
  }
  const events = Array.isArray(json) ? json : [json];
  if (events.length === 0 || events.length > MESSAGE_EVENTS_MAX || !events.every(isEvent)) return undefined;
  const { traceparent } = properties.headers ?? {};
  if (Array.isArray(json) || typeof traceparent !== 'string') return events;
  return events.map((event) => ({ ...event, traceparent })); // in the same place for both forms
}

/** What order and meaning rest on. A newer service may add members. */
function isEvent(json: unknown): json is BalanceEvent {
  const { id, type, data } = (json ?? {}) as Partial<BalanceEvent>;
  const { accountId, version, epoch, previousEpoch, amount, heldChange, balance, held } = (data ?? {}) as Partial<
    BalanceEvent['data']
  >;
  return (
    typeof accountId === 'string' &&
    [version, epoch, amount, heldChange, balance, held].every((one) => Number.isSafeInteger(one)) &&
    (version === 0 ? previousEpoch === undefined : Number.isSafeInteger(previousEpoch)) &&
    (version as number) >= 0 &&
    (epoch as number) >= Math.max(1, previousEpoch ?? 1) &&
    id === `${accountId}:${version}:${(epoch as number).toString(36)}` &&
    typeof type === 'string'
  );
}
