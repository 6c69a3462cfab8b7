// What the checks look at, and how it is sorted for them: by operation, by account.
import { ACCOUNTS } from '../accounts.ts';
import type { Evidence } from '../faults/fault.ts';
import type { Entry, FinalState } from '../final-state.ts';
import type { Attempt, History, Operation, PolicyChange } from '../history.ts';
import type { SubscriberRecord } from '../subscriber.ts';

/** One thing that does not hold. */
export interface Violation {
  /** Which check found it. */
  check: string;
  what: string;
  accountId?: string;
  /** On the clients' clock, where it has a time. */
  atMs?: number;
}

export interface Window {
  startMs: number;
  endMs: number;
}

export interface CheckInput {
  history: History;
  final: FinalState;
  subscriber: SubscriberRecord;
  evidence: Evidence;
  /** Times without faults, with traffic, after everything had healed. */
  calm: readonly Window[];
}

/** An answer that is remembered under a key, and final. */
export type Remembered = Attempt & {
  result: { kind: 'applied' | 'declined'; replayed: boolean; balance: number; version: number };
};

export interface Case {
  operation: Operation;
  /** In order of their start; those that misuse its key are not among them. */
  attempts: Attempt[];
  remembered: Remembered[];
  entries: Entry[];
  /** Its effect lies between its first attempt and the first answer that knows about it. */
  startMs: number;
  endMs: number;
}

export interface Cases {
  byId: ReadonlyMap<string, Case>;
  byAccount: ReadonlyMap<string, Case[]>;
  misuses: Attempt[];
}

export function isRemembered(attempt: Attempt): attempt is Remembered {
  return attempt.result.kind === 'applied' || attempt.result.kind === 'declined';
}

export function casesOf({ history, final }: Pick<CheckInput, 'history' | 'final'>): Cases {
  const byId = new Map<string, Case>();
  const misuses: Attempt[] = [];
  for (const attempt of history.attempts) {
    const { operation } = attempt;
    let one = byId.get(operation.id);
    if (!one) {
      one = { operation, attempts: [], remembered: [], entries: [], startMs: Infinity, endMs: Infinity };
      byId.set(operation.id, one);
    }
    if (attempt.isReuse) misuses.push(attempt);
    else one.attempts.push(attempt);
    one.startMs = Math.min(one.startMs, attempt.startMs);
    if (!isRemembered(attempt)) continue;
    one.endMs = Math.min(one.endMs, attempt.endMs);
    if (!attempt.isReuse) one.remembered.push(attempt);
  }
  for (const entries of final.ledger.values()) {
    for (const entry of entries) byId.get(entry.reference ?? '')?.entries.push(entry);
  }
  const byAccount = new Map<string, Case[]>();
  for (const one of byId.values()) {
    one.attempts.sort((a, b) => a.startMs - b.startMs);
    const { accountId } = one.operation;
    const ofAccount = byAccount.get(accountId);
    if (ofAccount) ofAccount.push(one);
    else byAccount.set(accountId, [one]);
  }
  return { byId, byAccount, misuses };
}

/** The balance that a version left; undefined when there is no such version. */
export function balanceAt(final: FinalState, accountId: string, version: number): number | undefined {
  return version === 0 ? 0 : final.ledger.get(accountId)?.[version - 1]?.balance;
}

/** Status and limit that an account may have had at some moment of a window. */
export interface PossiblePolicies {
  statuses: ReadonlySet<'open' | 'frozen'>;
  limitMin: number;
  limitMax: number;
}

/**
 * Changes of one account come one after the other. A certain one is in force between its start and its end, and until the
 * next; an uncertain one can come into force at any moment from its start to its end, or never.
 */
export function policiesOf(history: History): (accountId: string, window: Window) => PossiblePolicies {
  const byAccount = new Map<string, PolicyChange[]>();
  for (const change of history.policyChanges) {
    byAccount.set(change.accountId, [...(byAccount.get(change.accountId) ?? []), change]);
  }
  return (accountId, { startMs, endMs }) => {
    const overdraftLimit = history.accounts.get(accountId) ?? ACCOUNTS.get(accountId) ?? 0;
    const created = {
      accountId,
      startMs: -Infinity,
      endMs: -Infinity,
      isCertain: true,
      status: 'open' as const,
      overdraftLimit,
    };
    const changes = byAccount.get(accountId) ?? [];
    const base = changes.findLast((change) => change.isCertain && change.endMs <= startMs) ?? created;
    const possible = [
      base,
      ...changes.filter(
        (change) =>
          change !== base && change.startMs <= endMs && change.endMs >= (change.isCertain ? startMs : base.startMs),
      ),
    ];
    const limits = possible.map((change) => change.overdraftLimit);
    return {
      statuses: new Set(possible.map((change) => change.status)),
      limitMin: Math.min(...limits),
      limitMax: Math.max(...limits),
    };
  };
}
