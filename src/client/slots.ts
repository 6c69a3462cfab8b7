// Bounds the requests in flight. Each uses one connection, so this bounds the connections too:
// fetch on its own opens as many as there are requests.
import { BalanceError } from './balance-error.ts';

/** Calls that wait for a slot; more would wait in vain. */
const WAITING_MAX = 10_000;

export interface Slots {
  /**
   * Waits for a slot, first come first served. @returns a function that gives it back, to be called
   * once.
   * @throws the signal's reason, or BalanceError `too_many_calls` at once.
   */
  take(signal: AbortSignal): Promise<() => void>;
}

export function createSlots(count: number): Slots {
  let free = count;
  const waiting = new Set<() => void>();

  function giveBack(): void {
    const [next] = waiting;
    if (next) next();
    else free += 1;
  }

  return {
    async take(signal) {
      signal.throwIfAborted();
      if (free > 0) {
        free -= 1;
        return giveBack;
      }
      if (waiting.size >= WAITING_MAX) {
        throw new BalanceError(
          'too_many_calls',
          `${WAITING_MAX} calls are already waiting in this client. Nothing was sent.`,
        );
      }
      return new Promise((resolve, reject) => {
        const enter = () => {
          leave();
          resolve(giveBack);
        };
        const onAbort = () => {
          leave();
          reject(signal.reason);
        };
        const leave = () => {
          waiting.delete(enter);
          signal.removeEventListener('abort', onAbort);
        };
        waiting.add(enter);
        signal.addEventListener('abort', onAbort);
      });
    },
  };
}
