// Limits how often `ask` is called. More frequent calls wait and share an answer: a flood costs no
// more than a few calls, and sequential calls are slowed down to this rate.
import { setTimeout as delay } from 'node:timers/promises';

/**
 * @returns a function that calls `ask` at once up to this many times in a row, and then this often
 * in a second. Fails as `ask` does.
 */
export function atMost<T>(perSecond: number, ask: () => Promise<T>): () => Promise<T> {
  const everyMs = 1000 / perSecond;
  const aheadMs = 1000 - everyMs;
  /** When the next call would be due at an even pace; calls may be ahead of it. */
  let dueAtMs = 0;
  let next: Promise<T> | undefined;

  function askNow(): Promise<T> {
    dueAtMs = Math.max(dueAtMs, performance.now()) + everyMs;
    return ask();
  }

  return () => {
    if (next) return next;
    const waitMs = dueAtMs - aheadMs - performance.now();
    if (waitMs <= 0) return askNow();
    next = delay(waitMs).then(() => {
      next = undefined;
      return askNow();
    });
    return next;
  };
}
