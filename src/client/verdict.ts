// What a refusal says about earlier attempts whose answers were lost.
import { BalanceError } from './balance-error.ts';

/**
 * Refusals that also settle an earlier attempt of the same request. Any other is about the last attempt only, while an
 * earlier one may still take effect. These are remembered under its key:
 */
const REMEMBERED: ReadonlySet<string> = new Set([
  'version_mismatch',
  'hold_amount_exceeded',
  'reversal_exceeds',
  'balance_out_of_range',
  'max_balance_exceeded',
  'insufficient_funds',
]);

/**
 * After these, no attempt can ever succeed: a closed account stays closed, an asset is fixed. Not
 * `hold_expired`, which a clock decides.
 */
const FINAL: ReadonlySet<string> = new Set([
  'idempotency_key_reused',
  'hold_exists',
  'account_closed',
  'asset_mismatch',
  'hold_closed',
  'not_reversible',
  'already_reversed',
]);

/** Whether a refusal settles every earlier attempt under the key, or of the hold, too. */
export function settles(code: string, idempotencyKey: string | undefined): boolean {
  return FINAL.has(code) || (idempotencyKey !== undefined && REMEMBERED.has(code));
}

/** What the last failure means for a request if an earlier attempt may have taken effect. */
export function verdict(
  last: BalanceError,
  unsettled: boolean,
  accountId: string | undefined,
  idempotencyKey: string | undefined,
): BalanceError {
  if (!unsettled || settles(last.code, idempotencyKey)) {
    if (last.idempotencyKey === idempotencyKey) return last;
    return new BalanceError(last.code, last.message, { ...last, cause: last.cause, accountId, idempotencyKey });
  }
  const again = idempotencyKey === undefined ? 'Retry the same call' : 'Retry it with its key';
  const what = 'The update was sent, but it is not known whether it was applied';
  const message = `${what}. ${again} to find out. Last: ${last.message}`;
  return new BalanceError('outcome_unknown', message, { cause: last, accountId, idempotencyKey, status: last.status });
}
