// What the checks look at, and how it is sorted for them.
import { AMOUNT_MAX } from '../accounts.ts';
import type { Evidence } from '../faults/fault.ts';
import type { Entry, FinalState } from '../final-state.ts';
import type {
  AccountState,
  Applied,
  Attempt,
  Declined,
  History,
  Opening,
  Operation,
  PolicyChange,
  Status,
} from '../history.ts';
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
export type Remembered = Attempt & { result: Applied | Declined };

/** What is known of an account's opening from the clients alone. */
export interface Birth {
  /** All requests for it. */
  openings: Opening[];
  /** It was opened between the start of the first request and the first answer that knows about it. */
  startMs: number;
  endMs: number;
}

export interface Case {
  operation: Operation;
  /** In order of their start; those that misuse its key are not among them. */
  attempts: Attempt[];
  remembered: Remembered[];
  /** One for each leg, if it took effect once. */
  entries: Entry[];
  /** Its effect lies between its first attempt and the first answer that knows about it. */
  startMs: number;
  endMs: number;
}

export interface Cases {
  byId: ReadonlyMap<string, Case>;
  misuses: Attempt[];
  births: ReadonlyMap<string, Birth>;
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
  for (const one of byId.values()) one.attempts.sort((a, b) => a.startMs - b.startMs);
  return { byId, misuses, births: birthsOf(history) };
}

function birthsOf({ openings }: History): Map<string, Birth> {
  const births = new Map<string, Birth>();
  for (const opening of openings) {
    const birth = births.get(opening.accountId) ?? { openings: [], startMs: Infinity, endMs: Infinity };
    births.set(opening.accountId, birth);
    birth.openings.push(opening);
    birth.startMs = Math.min(birth.startMs, opening.startMs);
    if (opening.result !== 'unknown') birth.endMs = Math.min(birth.endMs, opening.endMs);
  }
  return births;
}

/** The account as a version left it; undefined when there is no such version. */
export type StateAt = (accountId: string, version: number) => AccountState | undefined;

export function statesOf(final: FinalState): StateAt {
  const changes = new Map(
    [...final.ledger].map(([id, entries]) => [id, entries.filter(({ status }) => status !== null)]),
  );
  return (accountId, version) => {
    const entry = final.ledger.get(accountId)?.[version];
    const limits = changes.get(accountId)?.findLast((change) => change.version <= version);
    if (!entry || !limits) return undefined;
    const { asset, balance, held } = entry;
    const { overdraftLimit, maxBalance, status } = limits as Entry & AccountState;
    return { asset, balance, held, version: entry.version, overdraftLimit, maxBalance, status };
  };
}

/** Status and limits that an account may have had at some moment of a window. */
export interface PossiblePolicies {
  statuses: ReadonlySet<Status>;
  limitMin: number;
  limitMax: number;
  /** The highest balance. */
  ceilingMin: number;
  ceilingMax: number;
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
  const openings = new Map(history.openings.map((opening) => [opening.accountId, opening]));
  return (accountId, { startMs, endMs }) => {
    const { overdraftLimit = 0, maxBalance = null } = openings.get(accountId) ?? {};
    const created = {
      ...{ startMs: -Infinity, endMs: -Infinity, isCertain: true, status: 'open' as const },
      ...{ overdraftLimit, maxBalance },
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
    const ceilings = possible.map((change) => change.maxBalance ?? AMOUNT_MAX);
    return {
      statuses: new Set(possible.map((change) => change.status)),
      limitMin: Math.min(...limits),
      limitMax: Math.max(...limits),
      ceilingMin: Math.min(...ceilings),
      ceilingMax: Math.max(...ceilings),
    };
  };
}
