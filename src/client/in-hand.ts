// Counts what is in hand: at most `prefetch` messages, with RabbitMQ's help. Reports when all of it
// waits, so that nothing more arrives.
import type { AccountEvents } from './account-events.ts';
import type { Problem } from './subscription.ts';

/** Accounts that a report names. */
const NAMED_MAX = 10;

export class InHand {
  readonly #prefetch: number;
  readonly #stopping: AbortSignal;
  readonly #report: (problem: Problem) => void;
  /** Those with something in hand, and some that had. */
  readonly #met = new Set<AccountEvents>();
  #messages = 0;
  /** Accounts that continue without new events. */
  #busy = 0;
  /** Grows with each clear(). */
  #era = 0;
  #isStalled = false;
  /**
   * full() may end an account's run at once, which calls noteStall() again: with thousands of
   * accounts that would overflow the stack.
   */
  #isNoting = false;

  constructor(prefetch: number, stopping: AbortSignal, report: (problem: Problem) => void) {
    this.#prefetch = prefetch;
    this.#stopping = stopping;
    this.#report = report;
  }

  /** @returns what is called for each of the message's events once it was dealt with; after the last one, `done` is. */
  add(events: number, done: () => void): () => void {
    this.#messages += 1;
    let open = events;
    const takenIn = this.#era;
    return () => {
      open -= 1;
      if (open > 0 || takenIn !== this.#era) return;
      this.#messages -= 1;
      this.#isStalled = false;
      done();
    };
  }

  meet(account: AccountEvents): void {
    this.#met.add(account);
  }

  busy(difference: 1 | -1): void {
    this.#busy += difference;
    if (difference < 0) this.noteStall();
  }

  /** No more fits, and nothing progresses, apart from `but` accounts. */
  isFull(but = 0): boolean {
    return this.#messages >= this.#prefetch && this.#busy <= but;
  }

  /** Nothing in hand progresses, and nothing more arrives: only the subscriber can resolve it. */
  noteStall(): void {
    if (this.#isNoting || !this.isFull() || this.#stopping.aborted) return;
    this.#isNoting = true;
    for (const account of this.#met) if (account.inHand === 0) this.#met.delete(account);
    if (!this.#isStalled) this.#report(stallOf([...this.#met], this.#messages));
    this.#isStalled = true;
    try {
      for (const account of this.#met) account.full();
    } finally {
      this.#isNoting = false;
    }
  }

  clear(): void {
    this.#era += 1;
    this.#messages = 0;
    this.#isStalled = false;
    this.#met.clear();
  }
}

function stallOf(accounts: readonly AccountEvents[], messages: number): Problem {
  const named = accounts.toSorted((one, other) => other.inHand - one.inHand).slice(0, NAMED_MAX);
  const names = named.map(({ id, inHand: events }) => `${id} (${events} events)`).join(', ');
  const others = accounts.length > named.length ? ` and ${accounts.length - named.length} others` : '';
  return {
    kind: 'stalled',
    message: `all ${messages} messages that fit in hand wait for ${names}${others}: nothing else is handled until one of them continues`,
    ...(named[0] ? { accountId: named[0].id } : {}),
  };
}
