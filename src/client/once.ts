// Calls that move money or set it aside: each under an idempotency key, or the id of a hold, so
// that it takes effect once however often it is sent, and no unknown outcome stays unreported.
import { randomUUID } from 'node:crypto';
import { type AppliedUpdate, BULK_UPDATES_MAX } from '../shared/contract.ts';
import { BalanceError, errorOf, invalidInput, type ProblemDocument } from './balance-error.ts';
import { type Http, type HttpAnswer, type HttpRequest, send } from './http.ts';
import { type Outcome, persist } from './persist.ts';
import { verdict } from './verdict.ts';

/** What the answer to a call with a key has besides its body. */
export interface Receipt {
  idempotencyKey: string;
  /**
   * An earlier attempt, of this call or of another under the same key, took effect; this is its
   * answer, replayed.
   */
  replayed: boolean;
}

/** What took effect: an update, unless it says what else. */
export type Applied<Answer = AppliedUpdate> = Answer & Receipt;

/** Of one part of a bulk call. */
export type BulkResult<Answer = AppliedUpdate> = ({ ok: true } & Applied<Answer>) | { ok: false; error: BalanceError };

/** One result for each part, in order. */
export interface BulkAnswer<Answer> {
  results: (({ status: 200; replayed: boolean } & Answer) | ({ replayed: boolean } & ProblemDocument))[];
}

export interface BulkRequest {
  path: string;
  /** The member of the body that holds them. */
  parts: 'updates' | 'transfers';
  /** A member that only the result of an applied one has. */
  resultHas: string;
  traceparent?: string | undefined;
}

export interface BulkPart {
  idempotencyKey?: string | undefined;
  /** Where it is about one account. */
  accountId?: string | undefined;
}

/** Temporary refusals of one part: it is retried. */
export const PASSING_RESULTS: ReadonlySet<string> = new Set(['overloaded', 'unavailable', 'outcome_unknown']);

/**
 * The request has no key only if a retry is safe by itself: a hold has its id.
 * @param accountId for the error, where the request is about one account.
 * @throws BalanceError
 */
export async function sendOnce<Answer>(
  http: Http,
  request: HttpRequest,
  accountId: string | undefined,
  deadlineMs: number,
  signal: AbortSignal | undefined,
): Promise<HttpAnswer<Answer>> {
  const { idempotencyKey } = request;
  if (idempotencyKey !== undefined) checkKey(idempotencyKey, 'idempotencyKey');
  let unsettled = false;
  try {
    return await persist(deadlineMs, signal, async (over) => {
      const outcome = await send<Answer>(http, request, over);
      if ('failed' in outcome && outcome.unsettled) unsettled = true;
      return outcome;
    });
  } catch (error) {
    if (!(error instanceof BalanceError)) throw error;
    throw verdict(error, unsettled, accountId, idempotencyKey);
  }
}

/**
 * Resolves with one result for each part, in order.
 * @throws BalanceError when the request was refused as a whole, and nothing can have taken effect.
 */
export async function sendBulkOnce<Answer>(
  http: Http,
  { path, parts, resultHas, traceparent }: BulkRequest,
  given: readonly BulkPart[],
  deadlineMs: number,
  signal: AbortSignal | undefined,
): Promise<BulkResult<Answer>[]> {
  checkLength(given.length, parts);
  const keyed = given.map((part, index) => {
    const idempotencyKey = part.idempotencyKey ?? randomUUID();
    checkKey(idempotencyKey, `/${parts}/${index}/idempotencyKey`);
    return { ...part, idempotencyKey };
  });
  const results: (BulkResult<Answer> | undefined)[] = keyed.map(() => undefined);
  /** Indexes of those without a final result, and of those that may have taken effect. */
  let open = keyed.map((_, index) => index);
  const unsettled = new Set<number>();

  async function attempt(over: AbortSignal): Promise<Outcome<undefined>> {
    const body = JSON.stringify({ [parts]: open.map((index) => keyed[index]) });
    const request: HttpRequest = { method: 'POST', path, body, traceparent, answerHas: 'results' };
    const outcome = await send<BulkAnswer<Answer>>(http, request, over);
    if ('failed' in outcome) {
      for (const index of open) {
        results[index] = undefined; // the result of an earlier attempt
        if (outcome.unsettled) unsettled.add(index);
      }
      return outcome;
    }
    let refusal: BalanceError | undefined;
    open = open.filter((index, place) => {
      const idempotencyKey = keyed[index]!.idempotencyKey;
      const result = outcome.done.body.results[place]!;
      if (resultHas in result) {
        const { status, ...applied } = result;
        results[index] = { ok: true, ...applied, idempotencyKey } as BulkResult<Answer>;
        return false;
      }
      const error = errorOf(result as ProblemDocument, idempotencyKey);
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
  return results as BulkResult<Answer>[];
}

export function checkLength(length: number, parts: BulkRequest['parts']): void {
  if (length >= 1 && length <= BULK_UPDATES_MAX) return;
  throw invalidInput(`/${parts}`, `must hold 1 to ${BULK_UPDATES_MAX} ${parts}, not ${length}: send several calls`);
}

export function checkKey(key: string, where: string): void {
  if (typeof key !== 'string' || !/^[\x20-\x7e]{1,255}$/.test(key))
    throw invalidInput(where, 'must be 1 to 255 printable ASCII characters');
}
