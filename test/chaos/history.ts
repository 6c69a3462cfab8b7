// What clients did and saw. A missing answer is an answer of its own kind: unknown. All times are milliseconds of this
// process's monotonic clock, so "ended before another began" means what it says.

/** One update that somebody wants. Repeats under a key are attempts at the same operation. */
export interface Operation {
  /** Also its reference, so that each entry can be traced to the operation that asked for it. */
  id: string;
  accountId: string;
  amount: number;
  key: string | null;
}

export type Result =
  | { kind: 'applied'; replayed: boolean; balance: number; version: number; createdAt: string }
  | {
      kind: 'declined';
      code: 'insufficient_funds' | 'balance_out_of_range';
      replayed: boolean;
      balance: number;
      version: number;
    }
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

/** The state of an account that somebody read. */
export interface Reading {
  accountId: string;
  startMs: number;
  endMs: number;
  balance: number;
  version: number;
}

/** A change of an account's status and limit that was asked for. Of one account one after the other. */
export interface PolicyChange {
  accountId: string;
  startMs: number;
  /** It is in force, at the latest, since then; or, not certain, it can come into force until then. */
  endMs: number;
  isCertain: boolean;
  status: 'open' | 'frozen';
  overdraftLimit: number;
}

/** The whole record of one run. */
export class History {
  readonly attempts: Attempt[] = [];
  readonly readings: Reading[] = [];
  readonly policyChanges: PolicyChange[] = [];
  /** Overdraft limit of each account, as it was created. */
  readonly accounts = new Map<string, number>();
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
}

export function now(): number {
  return performance.now();
}
