// Tries until there is an answer, a refusal that a repeat cannot change, the deadline, or the caller's abort.
import { setTimeout as delay } from 'node:timers/promises';
import { backOffMs } from './back-off.ts';
import { BalanceError } from './balance-error.ts';

export interface CallOptions {
  /** Aborts the call. An update that was sent before is `outcome_unknown`: it may be applied all the same. */
  signal?: AbortSignal | undefined;
  /** Longest time for the call with all its attempts, in milliseconds. */
  deadlineMs?: number | undefined;
}

export interface KeyedCallOptions extends CallOptions {
  /** 1 to 255 printable ASCII characters; each call has one of its own unless given. */
  idempotencyKey?: string | undefined;
}

export type Outcome<T> =
  | { done: T }
  | {
      failed: BalanceError;
      /** Whether another attempt may go better. */
      again: boolean;
      retryAfterMs?: number | undefined;
      /** Whether this attempt may have taken effect, or may do so still. */
      unsettled: boolean;
    };

/**
 * @param attempt makes one attempt, and ends early when its signal is aborted.
 * @throws BalanceError: the last failure, or `aborted`.
 */
export async function persist<T>(
  deadlineMs: number,
  signal: AbortSignal | undefined,
  attempt: (signal: AbortSignal) => Promise<Outcome<T>>,
): Promise<T> {
  const over = new AbortController();
  const deadlineAtMs = performance.now() + deadlineMs;
  const timer = setTimeout(() => over.abort(new Error(`the deadline of ${deadlineMs} ms`)), deadlineMs);
  // Not with the caller's reason: fetch fails with what it is aborted with, and an error of some other connection says nothing of ours.
  const onAbort = () => over.abort(new Error('aborted by the caller'));
  signal?.addEventListener('abort', onAbort);
  if (signal?.aborted) onAbort();
  try {
    for (let failed = 1; ; failed += 1) {
      if (signal?.aborted) throw new BalanceError('aborted', 'Aborted by the caller.', { cause: signal.reason });
      const outcome = await attempt(over.signal);
      if ('done' in outcome) return outcome.done;
      if (signal?.aborted) continue;
      const pauseMs = backOffMs(failed, outcome.retryAfterMs);
      if (!outcome.again || performance.now() + pauseMs >= deadlineAtMs) throw outcome.failed;
      await delay(pauseMs, undefined, { signal: over.signal }).catch(() => {}); // aborted: seen above
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}
