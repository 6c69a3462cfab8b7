// Shared by all accounts of a subscription.
import type { Places } from './places.ts';
import type { EntriesReader } from './standing.ts';
import type { Problem, SubscribeOptions } from './subscription.ts';

export interface Surroundings {
  callbacks: Pick<SubscribeOptions, 'handle' | 'lastHandled' | 'onGap' | 'onRewind'>;
  client: EntriesReader;
  gapTimeoutMs: number;
  handling: Places;
  lookUps: Places;
  /** Reads of entries: an API that does not answer holds up only the accounts that need it. */
  readings: Places;
  questions: Places;
  backfills: Places;
  stopping: AbortSignal;
  report(problem: Problem): void;
  /** Counts the accounts that will continue without new events. */
  busy(difference: 1 | -1): void;
  /** Grows when another process may have continued: everything is then looked up again. */
  turn(): number;
  /** No more fits in hand, and nothing in it progresses, apart from `but` accounts. */
  isFull(but?: number): boolean;
}
