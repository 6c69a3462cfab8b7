// When no fault strikes and everything has healed, every request gets an answer that settles it.
import { DECLINES } from '../history.ts';
import type { CheckInput, Violation } from './evidence.ts';

/** A client that gave up by itself proves nothing. */
const OWN_TIMEOUT = /^no answer within/;

export function checkRecovery({ history, calm }: CheckInput): Violation[] {
  return history.attempts.flatMap(({ operation, api, startMs, endMs, result }) => {
    if (!calm.some((window) => startMs >= window.startMs && endMs <= window.endMs)) return [];
    const isUnsettled =
      (result.kind === 'unknown' && !result.wasAnswered && !OWN_TIMEOUT.test(result.why)) ||
      (result.kind === 'refused' && !EXPECTED_REFUSALS.has(result.code));
    if (!isUnsettled) return [];
    const what = `without any fault, ${api} answered ${operation.id} with ${JSON.stringify(result)}`;
    return [{ check: 'recovery', accountId: operation.legs[0].accountId, atMs: startMs, what }];
  });
}

/**
 * Other checks judge whether the account was open, frozen or closed, and what the hold and the reversed change were. Overloaded
 * too: this suite is not about how much the machine can do while others use it.
 */
const EXPECTED_REFUSALS = new Set<string>([
  ...[
    'account_not_found',
    'account_frozen',
    'account_closed',
    'idempotency_key_reused',
    'overloaded',
    'asset_mismatch',
  ],
  ...['hold_exists', 'hold_not_found', 'hold_closed', 'hold_expired', ...DECLINES],
  ...['change_not_found', 'not_reversible', 'already_reversed'],
]);
