// Wakes one waiter, also when the call comes before the wait.
import { within } from './within.ts';

export interface WakeUp {
  wake(): void;
  /**
   * Resolves at the next wake(), at once where one came since the last wait, or after the time.
   * @returns whether it was woken.
   */
  wokenOr(timeoutMs: number): Promise<boolean>;
}

export function createWakeUp(): WakeUp {
  let isAwake = false;
  let onWake = () => {};
  return {
    wake() {
      isAwake = true;
      onWake();
    },
    async wokenOr(timeoutMs) {
      if (!isAwake) await within(timeoutMs, new Promise<void>((resolve) => (onWake = resolve)), () => {});
      const wasWoken = isAwake;
      isAwake = false;
      return wasWoken;
    },
  };
}
