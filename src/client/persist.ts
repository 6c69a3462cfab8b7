// Retries until there is an answer, a final refusal, the deadline, or an abort.
import { setTimeout as delay } from 'node:timers/promises';
import { BalanceError } from './balance-error.ts';
import { retryPauseMs } from './retry-pause.ts';

export type Outcome<T> =
  | { done: T }
  | {
      failed: BalanceError;
      /** Whether another attempt may succeed. */
      again: boolean;
      retryAfterMs?: number | undefined;
      /** Whether this attempt may have taken effect, or may still do so. */
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
  // Not with the signal's reason: fetch fails with the reason it is aborted with, and an error of
  // another connection must not be taken for ours.
  const onAbort = () => over.abort(new Error('the call was aborted'));
  signal?.addEventListener('abort', onAbort);
  if (signal?.aborted) onAbort();
  try {
    for (let failed = 1; ; failed += 1) {
      if (signal?.aborted) throw new BalanceError('aborted', 'The call was aborted.', { cause: signal.reason });
      const outcome = await attempt(over.signal);
      if ('done' in outcome) return outcome.done;
      if (signal?.aborted) continue;
      const pauseMs = retryPauseMs(failed, outcome.retryAfterMs);
      if (!outcome.again || performance.now() + pauseMs >= deadlineAtMs) throw outcome.failed;
      await delay(pauseMs, undefined, { signal: over.signal }).catch(() => {}); // aborted: seen above
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}
