// Runs duties concurrently until one of them fails or the term is over.
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';

export interface Duty {
  /** Once more of what it does. Throws when the database fails. */
  round(): Promise<void>;
  /** Between two rounds. */
  readonly pauseMs: number;
}

export async function runDuties(duties: readonly Duty[], signal: AbortSignal): Promise<void> {
  const over = signal.aborted || once(signal, 'abort');
  // A round can be long, and hang: it is not waited for.
  await Promise.race([Promise.all(duties.map((duty) => run(duty, signal))), over]);
}

async function run(duty: Duty, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await duty.round();
    await delay(duty.pauseMs, undefined, { signal }).catch(() => {});
  }
}
