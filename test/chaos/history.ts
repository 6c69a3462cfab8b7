// What clients did and saw. A missing answer is an answer of its own kind: unknown. All times are milliseconds of this
// process's monotonic clock, so "ended before another began" means what it says.
import type { AccountLimits, Actor } from './accounts.ts';

/** One update that a client wants. Retries under a key are attempts at the same operation. */
export interface Operation {
  /** Also its reference, so that each entry can be traced to the operation that asked for it. */
  id: string;
  accountId: string;
  amount: number;
  /** Two actors may use the same key on one account: each gets an effect of its own. */
  key: string | null;
  actor: Actor;
}

export const DECLINES = ['insufficient_funds', 'balance_out_of_range', 'max_balance_exceeded'] as const;

export type Result =
  | { kind: 'applied'; replayed: boolean; balance: number; version: number; epoch: number; createdAt: string }
  | { kind: 'declined'; code: (typeof DECLINES)[number]; replayed: boolean; balance: number; version: number }
  /** The service says that this attempt changed nothing, or the connection was refused. */
  | { kind: 'refused'; code: string }
  /** Whether this attempt changed something is not known. */
  | { kind: 'unknown'; why: string };

export interface Attempt {
  operation: Operation;
  /** The API process it was sent to. */
  api: string;
  startMs: number;
  endMs: number;
  result: Result;
  /** The bulk request it was part of, and its place there. */
  bulk?: { request: number; place: number };
  /** A deliberate reuse of another operation's key: only a refusal is right. */
  isReuse?: boolean;
}

/** An account as an answer showed it. */
export interface AccountState extends AccountLimits {
  asset: string;
  balance: number;
  held: number;
  version: number;
  status: Status;
}

export type Status = 'open' | 'frozen' | 'closed';

/** An account that an answer showed: of a GET, a POST or a PATCH. */
export interface Reading {
  accountId: string;
  startMs: number;
  endMs: number;
  state: AccountState;
}

/** A request to open an account. */
export interface Opening extends AccountLimits {
  accountId: string;
  asset: string;
  actor: Actor;
  startMs: number;
  endMs: number;
  /** opened: by this request. present: it was there. unknown: it may have been opened. */
  result: 'opened' | 'present' | 'unknown';
}

/** A request to change an account's status and limits. For one account they are sent one after the other. */
export interface PolicyChange extends AccountLimits {
  accountId: string;
  status: Status;
  actor: Actor;
  startMs: number;
  /** It is in force, at the latest, since then; or, not certain, it can come into force until then. */
  endMs: number;
  isCertain: boolean;
}

/** The whole record of one run. */
export class History {
  readonly attempts: Attempt[] = [];
  readonly readings: Reading[] = [];
  readonly openings: Opening[] = [];
  readonly policyChanges: PolicyChange[] = [];
  /** Answers that no API of ours may give; each is a violation. */
  readonly unexpected: { atMs: number; what: string }[] = [];

  get counts() {
    const counts = { requests: this.attempts.length, accepted: 0, declined: 0, refused: 0, unknown: 0, replayed: 0 };
    for (const { result } of this.attempts) {
      if (result.kind === 'applied') counts.accepted += 1;
      else counts[result.kind] += 1;
      if ('replayed' in result && result.replayed) counts.replayed += 1;
    }
    return counts;
  }

  /** How often each refusal was answered, remembered or not. */
  get codes(): Record<string, number> {
    const codes: Record<string, number> = {};
    for (const { result } of this.attempts) {
      if ('code' in result) codes[result.code] = (codes[result.code] ?? 0) + 1;
    }
    return codes;
  }
}

export function now(): number {
  return performance.now();
}
