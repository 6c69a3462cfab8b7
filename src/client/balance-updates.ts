// Balance updates: each under an idempotency key, so that it takes effect once however often it is sent, and none is
// left in doubt in silence.
import { randomUUID } from 'node:crypto';
import { type AppliedUpdate, BULK_UPDATES_MAX, type BulkUpdate } from '../shared/contract.ts';
import { BalanceError, errorOf, invalidInput, type ProblemDocument } from './balance-error.ts';
import { type Http, send } from './http.ts';
import { type Outcome, persist } from './persist.ts';

/** An update that took effect. */
export interface Applied extends AppliedUpdate {
  idempotencyKey: string;
  /** An earlier attempt, of this call or of another under the same key, took effect; this is its answer again. */
  replayed: boolean;
}

/** Of one update in a bulk call. */
export type BulkResult = ({ ok: true } & Applied) | { ok: false; error: BalanceError };

/** One result for each update, in order. */
interface BulkAnswer {
  results: (({ status: 200; replayed: boolean } & AppliedUpdate) | ({ replayed: boolean } & ProblemDocument))[];
}

/** Refusals of one update that pass: it is sent again. */
const PASSING_RESULTS: ReadonlySet<string> = new Set(['overloaded', 'unavailable', 'outcome_unknown']);

/**
 * Answers that also settle an earlier attempt under the same key: they are remembered, or no attempt with that body can
 * pass. Any other refusal is about the last attempt only, while an earlier one may still take effect.
 */
const SETTLING: ReadonlySet<string> = new Set([
  'insufficient_funds',
  'balance_out_of_range',
  'max_balance_exceeded',
  'idempotency_key_reused',
]);

/** @throws BalanceError */
export async function updateBalance(
  http: Http,
  { idempotencyKey = randomUUID(), ...update }: BulkUpdate,
  deadlineMs: number,
  signal: AbortSignal | undefined,
): Promise<Applied> {
  checkKey(idempotencyKey, 'idempotencyKey');
  const request = {
    method: 'POST',
    path: '/v1/balance-updates',
    body: JSON.stringify(update),
    idempotencyKey,
    answerHas: 'eventId',
  } as const;
  let unsettled = false;
  try {
    const { body, replayed } = await persist(deadlineMs, signal, async (over) => {
      const outcome = await send<AppliedUpdate>(http, request, over);
      if ('failed' in outcome && outcome.unsettled) unsettled = true;
      return outcome;
    });
    return { ...body, idempotencyKey, replayed };
  } catch (error) {
    throw verdict(error as BalanceError, unsettled, update.accountId, idempotencyKey);
  }
}

/**
 * Resolves with one result for each update, in order.
 * @throws BalanceError when the request was refused as a whole, and no update can have taken effect.
 */
export async function updateBalances(
  http: Http,
  updates: readonly BulkUpdate[],
  deadlineMs: number,
  signal: AbortSignal | undefined,
): Promise<BulkResult[]> {
  if (updates.length < 1 || updates.length > BULK_UPDATES_MAX) {
    throw invalidInput(
      '/updates',
      `must hold 1 to ${BULK_UPDATES_MAX} updates, not ${updates.length}: send several calls`,
    );
  }
  const keyed = updates.map((update, index) => {
    const idempotencyKey = update.idempotencyKey ?? randomUUID();
    checkKey(idempotencyKey, `/updates/${index}/idempotencyKey`);
    return { ...update, idempotencyKey };
  });
  const results: (BulkResult | undefined)[] = keyed.map(() => undefined);
  /** Indexes of those without a final result, and of those that may have taken effect. */
  let open = keyed.map((_, index) => index);
  const unsettled = new Set<number>();

  async function attempt(over: AbortSignal): Promise<Outcome<undefined>> {
    const body = JSON.stringify({ updates: open.map((index) => keyed[index]) });
    const outcome = await send<BulkAnswer>(
      http,
      { method: 'POST', path: '/v1/balance-updates/bulk', body, answerHas: 'results' },
      over,
    );
    if ('failed' in outcome) {
      for (const index of open) {
        results[index] = undefined; // what an earlier attempt said of it
        if (outcome.unsettled) unsettled.add(index);
      }
      return outcome;
    }
    let refusal: BalanceError | undefined;
    open = open.filter((index, place) => {
      const idempotencyKey = keyed[index]!.idempotencyKey;
      const result = outcome.done.body.results[place]!;
      if ('eventId' in result) {
        const { status, ...applied } = result;
        results[index] = { ok: true, ...applied, idempotencyKey };
        return false;
      }
      const error = errorOf(result, idempotencyKey);
      if (error.code === 'outcome_unknown') unsettled.add(index);
      results[index] = { ok: false, error: verdict(error, unsettled.has(index), error.accountId, idempotencyKey) };
      if (PASSING_RESULTS.has(error.code)) refusal = error;
      return PASSING_RESULTS.has(error.code);
    });
    return refusal ? { failed: refusal, again: true, unsettled: false } : { done: undefined };
  }

  try {
    await persist(deadlineMs, signal, attempt);
  } catch (error) {
    if (unsettled.size === 0 && results.every((result) => result === undefined)) throw error;
    for (const index of open) {
      const { accountId, idempotencyKey } = keyed[index]!;
      const last = verdict(error as BalanceError, unsettled.has(index), accountId, idempotencyKey);
      results[index] ??= { ok: false, error: last };
    }
  }
  return results as BulkResult[];
}

/** What the last failure means for an update of which an earlier attempt may have taken effect. */
function verdict(
  last: BalanceError,
  unsettled: boolean,
  accountId: string | undefined,
  idempotencyKey: string,
): BalanceError {
  if (!unsettled || SETTLING.has(last.code)) {
    if (last.idempotencyKey === idempotencyKey) return last;
    return new BalanceError(last.code, last.message, { ...last, cause: last.cause, accountId, idempotencyKey });
  }
  const message = `The update was sent, and whether it was applied is not known. Send it again under its key to find out. Last: ${last.message}`;
  return new BalanceError('outcome_unknown', message, { cause: last, accountId, idempotencyKey, status: last.status });
}

function checkKey(key: string, where: string): void {
  if (!/^[\x20-\x7e]{1,255}$/.test(key)) throw invalidInput(where, 'must be 1 to 255 printable ASCII characters');
}
