// Dispatches each event to its account, and reports when a whole message has been dealt with.
import type { BalanceEvent } from '../shared/contract.ts';
import { AccountEvents } from './account-events.ts';
import { InHand } from './in-hand.ts';
import { createPlaces } from './places.ts';
import type { Problem, SubscribeOptions } from './subscription.ts';

/** Accounts whose progress is remembered; for any other it is looked up when an event arrives. */
const ACCOUNTS_MAX = 100_000;
/** A pause in which nothing arrives and another consumer of the queue may have been the active one. */
const QUIET_MS = 1000;

export interface EventMessage {
  events: readonly BalanceEvent[];
  redelivered: boolean;
  replayed: boolean;
  /** Called once all of its events were handled, or need not be. */
  done(): void;
}

export interface InOrder {
  take(message: EventMessage): void;
  /**
   * The messages in hand will be delivered again, here or elsewhere: drops them. Running handlers
   * continue.
   */
  forget(): void;
  /** Starts nothing more; resolves when no callback is running. */
  stop(): Promise<void>;
}

export function createInOrder(
  options: Pick<SubscribeOptions, 'handle' | 'lastHandled' | 'onGap' | 'onRewind' | 'client'>,
  limits: { concurrency: number; prefetch: number; gapTimeoutMs: number; quietMs?: number },
  report: (problem: Problem) => void,
): InOrder {
  const { concurrency, prefetch, gapTimeoutMs, quietMs = QUIET_MS } = limits;
  /** Least recently met first. */
  const accounts = new Map<string, AccountEvents>();
  const stopping = new AbortController();
  const inHand = new InHand(prefetch, stopping.signal, report);
  let turn = 0;
  let arrivedAtMs = performance.now();

  const surroundings = {
    callbacks: options,
    client: options.client,
    gapTimeoutMs,
    handling: createPlaces(concurrency),
    lookUps: createPlaces(concurrency),
    readings: createPlaces(concurrency),
    questions: createPlaces(concurrency),
    backfills: createPlaces(concurrency),
    stopping: stopping.signal,
    report,
    busy: (difference: 1 | -1) => inHand.busy(difference),
    isFull: (but?: number) => inHand.isFull(but),
    turn: () => turn,
  };

  function accountOf(id: string): AccountEvents {
    const account = accounts.get(id) ?? new AccountEvents(id, surroundings);
    accounts.delete(id);
    accounts.set(id, account);
    if (accounts.size > ACCOUNTS_MAX) {
      for (const old of accounts.values()) {
        if (!old.isIdle || old === account) continue;
        accounts.delete(old.id);
        break;
      }
    }
    return account;
  }

  return {
    take({ events, done, ...delivery }) {
      if (stopping.signal.aborted) return;
      const nowMs = performance.now();
      if (nowMs - arrivedAtMs > quietMs) turn += 1;
      arrivedAtMs = nowMs;
      const settle = inHand.add(events.length, done);
      const here = new Set<AccountEvents>();
      for (const event of events) {
        const account = accountOf(event.data.accountId);
        here.add(account);
        inHand.meet(account);
        account.take({ event, ...delivery, settle });
      }
      for (const account of here) account.advance();
      inHand.noteStall();
    },
    forget() {
      turn += 1;
      inHand.clear();
      for (const account of accounts.values()) account.forget();
    },
    async stop() {
      stopping.abort();
      await Promise.all([...accounts.values()].map((account) => account.stop()));
    },
  };
}
