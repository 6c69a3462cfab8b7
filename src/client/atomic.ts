// Updates that take effect together or not at all: one request with one idempotency key, retried
// unchanged until there is an answer for all of them.
import type { AppliedUpdate, BalanceUpdate, BulkUpdate } from '../shared/contract.ts';
import { type BalanceError, errorOf, type ProblemDocument } from './balance-error.ts';
import { type Http, type HttpAnswer, type HttpRequest, send } from './http.ts';
import { type BulkAnswer, type BulkResult, checkKey, checkLength, PASSING_RESULTS } from './once.ts';
import { type Outcome, persist } from './persist.ts';
import { settles, verdict } from './verdict.ts';

/** An update of an atomic call: the key is the call's, and the amount is moved whole. */
export interface AtomicUpdate extends Omit<BalanceUpdate, 'upTo'> {
  upTo?: undefined;
  idempotencyKey?: undefined;
}

export interface AtomicRequest {
  updates: readonly (AtomicUpdate | BulkUpdate)[];
  idempotencyKey: string;
  traceparent: string | undefined;
}

type Answer = HttpAnswer<BulkAnswer<AppliedUpdate>>;

/**
 * Resolves with one result for each update, in order: all of them `ok`, or none.
 * @throws BalanceError when nothing can have taken effect, and no update is the reason.
 */
export async function sendAtomically(
  http: Http,
  { updates, idempotencyKey, traceparent }: AtomicRequest,
  deadlineMs: number,
  signal: AbortSignal | undefined,
): Promise<BulkResult[]> {
  checkLength(updates.length, 'updates');
  checkKey(idempotencyKey, 'idempotencyKey');
  const path = '/v1/balance-updates/bulk';
  const body = JSON.stringify({ updates, atomic: true });
  const request: HttpRequest = { method: 'POST', path, body, idempotencyKey, traceparent, answerHas: 'results' };
  let unsettled = false;
  let answer: Answer;
  try {
    answer = await persist(deadlineMs, signal, async (over) => {
      const sent = await send<Answer['body']>(http, request, over);
      const outcome = aboutAll(sent, idempotencyKey);
      if ('failed' in outcome && outcome.unsettled) unsettled = true;
      return outcome;
    });
  } catch (error) {
    if (!unsettled || settles((error as BalanceError).code, idempotencyKey)) throw error;
    return updates.map(({ accountId }) => ({
      ok: false,
      error: verdict(error as BalanceError, true, accountId, idempotencyKey),
    }));
  }
  return resultsOf(answer, unsettled, idempotencyKey);
}

/** If one result has to be retried, the whole request has to be. */
function aboutAll(outcome: Outcome<Answer>, idempotencyKey: string): Outcome<Answer> {
  if ('failed' in outcome) return outcome;
  const passing = outcome.done.body.results.find(
    (result): result is { replayed: boolean } & ProblemDocument => 'code' in result && PASSING_RESULTS.has(result.code),
  );
  if (!passing) return outcome;
  return { failed: errorOf(passing, idempotencyKey), again: true, unsettled: passing.code === 'outcome_unknown' };
}

/**
 * `linked_failed` says nothing about earlier attempts: the refusal of the failed update does, for
 * all of them.
 */
function resultsOf({ body: { results } }: Answer, unsettled: boolean, idempotencyKey: string): BulkResult[] {
  const refused = results.filter((result): result is { replayed: boolean } & ProblemDocument => 'code' in result);
  const reason = refused.find(({ code }) => code !== 'linked_failed');
  const isOpen = unsettled && reason !== undefined && !settles(reason.code, idempotencyKey);
  return results.map((result): BulkResult => {
    if (!('code' in result)) {
      const { status, ...applied } = result;
      return { ok: true, ...applied, idempotencyKey };
    }
    const error = errorOf(result, idempotencyKey);
    return { ok: false, error: isOpen ? verdict(error, true, error.accountId, idempotencyKey) : error };
  });
}
