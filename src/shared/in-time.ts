// Calls `ask` with a time limit, never two at once.
import { within } from './within.ts';

/**
 * @param ask may be slow or never answer; a rejection counts as no answer.
 * @returns a function that calls `ask`, or waits for the call still in flight. It resolves to
 * undefined if no answer came in time, and never rejects.
 */
export function inTime<T>(ask: () => Promise<T>, waitMs: number): () => Promise<T | undefined> {
  let underWay: Promise<T | undefined> | undefined;
  return async () => {
    underWay ??= ask()
      .catch(() => undefined)
      .finally(() => {
        underWay = undefined;
      });
    return within(waitMs, underWay, () => undefined);
  };
}
