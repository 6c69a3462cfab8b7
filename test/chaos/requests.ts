// What a client sends to ask for an operation, in any of the forms that mean the same.
import type { Operation } from './history.ts';

export interface WantedRequest {
  method: 'POST' | 'PATCH';
  path: string;
  body: object;
}

/**
 * @param form any number. Retries of a transfer may have their legs in another order, or name a pair by `from` and `to`; the
 * order of names in metadata counts for nothing either.
 */
export function requestOf(operation: Operation, form = 0): WantedRequest {
  const { kind, legs, hold, amount, reverses } = operation;
  const [{ accountId }, receiving] = legs;
  const holds = `/v1/accounts/${accountId}/holds`;
  const notes = notesOf(operation, form);
  switch (kind) {
    case 'update':
      return { method: 'POST', path: '/v1/balance-updates', body: { ...updateOf(operation), ...notes } };
    case 'atomic': {
      const updates = legs.map((leg) => ({ ...leg, ...notes }));
      return { method: 'POST', path: '/v1/balance-updates/bulk', body: { atomic: true, updates } };
    }
    case 'transfer':
      return { method: 'POST', path: '/v1/transfers', body: { ...legsIn(operation, form), ...notes } };
    case 'reversal':
      return { method: 'POST', path: '/v1/reversals', body: { of: reverses, amount, ...notes } };
    case 'hold': {
      const { holdId, expiresInSeconds } = hold ?? {};
      return { method: 'POST', path: holds, body: { holdId, amount, expiresInSeconds, ...notes } };
    }
    case 'capture': {
      const body = { amount, final: hold?.isFinal, to: receiving?.accountId, ...notes };
      return { method: 'POST', path: `${holds}/${hold?.holdId}/capture`, body };
    }
    case 'release':
      return { method: 'POST', path: `${holds}/${hold?.holdId}/release`, body: { amount, ...notes } };
    case 'hold change': {
      const body = { amount, expiresInSeconds: hold?.expiresInSeconds, ...notes };
      return { method: 'PATCH', path: `${holds}/${hold?.holdId}`, body };
    }
  }
}

/** As one of a bulk request, with its key. */
export function bulkItemOf(operation: Operation, form = 0): object {
  const { key } = operation;
  return { ...requestOf(operation, form).body, ...(key === null ? {} : { idempotencyKey: key }) };
}

/** One with an amount of its own takes up to that. */
function updateOf({ legs: [leg], amount, expectedVersion }: Operation): object {
  return { ...leg, ...(amount === undefined ? {} : { amount, upTo: true }), expectedVersion };
}

function legsIn({ legs }: Operation, form: number): object {
  const [from, to] = [...legs].sort((one, other) => (one.amount ?? 0) - (other.amount ?? 0));
  if (legs.length === 2 && form % 2 === 1) return { from: from?.accountId, to: to?.accountId, amount: to?.amount };
  const first = form % legs.length;
  return { legs: [...legs.slice(first), ...legs.slice(0, first)] };
}

/** The reference traces entries to the operation. Plain updates do without metadata, as many clients will. */
function notesOf(operation: Operation, form: number): object {
  const metadata = metadataOf(operation);
  if (!metadata) return { reference: operation.id };
  const names = Object.entries(metadata);
  return { reference: operation.id, metadata: Object.fromEntries(form % 2 === 0 ? names : names.reverse()) };
}

export function metadataOf({ kind, actor }: Operation): Record<string, string> | undefined {
  return kind === 'update' ? undefined : { 'asked.by': actor, kind };
}
