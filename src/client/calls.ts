// Runs callbacks of one account that may fail or be slow: as many at once as there are places, with
// a report and a pause after a failure.
import { setTimeout as delay } from 'node:timers/promises';
import type { Places } from './places.ts';
import { retryPauseMs } from './retry-pause.ts';
import type { Problem } from './subscription.ts';
import type { Surroundings } from './surroundings.ts';

type Kind = { kind: Problem['kind']; version?: number };

export class Calls {
  readonly #accountId: string;
  readonly #with: Pick<Surroundings, 'stopping' | 'report' | 'busy'>;
  #failures = 0;
  /** While above 0, the account does not count as busy although a call is in flight. */
  #waits = 0;
  /** Grows with each abandon(). */
  era = 0;

  constructor(accountId: string, surroundings: Pick<Surroundings, 'stopping' | 'report' | 'busy'>) {
    this.#accountId = accountId;
    this.#with = surroundings;
  }

  /** The number of the present or the next attempt, from 1. */
  get attempt(): number {
    return this.#failures + 1;
  }

  /** Waiting calls are no longer made, and earlier answers no longer count. */
  abandon(): void {
    this.era += 1;
  }

  /** @returns undefined if it failed, after the pause, or if the call was no longer needed. */
  async call<T>(onFailure: Kind, places: Places, call: () => Promise<T> | T): Promise<{ value: T } | undefined> {
    const outcome = await this.once(onFailure, places, call);
    if (outcome && 'value' in outcome) return outcome;
    if (outcome) await this.pause(outcome.pauseMs);
    return undefined;
  }

  /** Before the next attempt. */
  async pause(pauseMs: number): Promise<void> {
    await this.waiting(() => delay(pauseMs, undefined, { signal: this.#with.stopping }).catch(() => {}));
  }

  /** As call(), but leaves the pause to its caller. */
  async once<T>(
    onFailure: Kind,
    places: Places,
    call: () => Promise<T> | T,
  ): Promise<{ value: T } | { pauseMs: number } | undefined> {
    const { stopping, report } = this.#with;
    const { era } = this;
    try {
      return await places.take(async () => {
        if (era !== this.era || stopping.aborted) return undefined;
        const value = await call();
        this.#failures = 0;
        return { value };
      });
    } catch (error) {
      if (stopping.aborted) return undefined;
      this.#failures += 1;
      const pauseMs = retryPauseMs(this.#failures);
      const what = onFailure.kind.replaceAll('_', ' ');
      const message = `${what}: ${error instanceof Error ? error.message : String(error)}`;
      report({ ...onFailure, message, error, accountId: this.#accountId, attempt: this.#failures, pauseMs });
      return { pauseMs };
    }
  }

  /** Waits for another party: the account does not count as busy meanwhile. */
  async waiting<T>(call: () => Promise<T>): Promise<T> {
    if (this.#waits === 0) this.#with.busy(-1);
    this.#waits += 1;
    try {
      return await call();
    } finally {
      this.#waits -= 1;
      if (this.#waits === 0) this.#with.busy(1);
    }
  }
}
