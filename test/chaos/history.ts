// What clients did and saw. A missing answer is an answer of its own kind: unknown. All times are milliseconds of this
// process's monotonic clock, so "ended before another began" means what it says.
import type { AccountLimits, Actor } from './accounts.ts';
import { WallClock } from './wall-clock.ts';

export type Kind = 'update' | 'atomic' | 'transfer' | 'reversal' | 'hold' | 'capture' | 'release' | 'hold change';

/** What an operation does to one account. */
export interface Leg {
  accountId: string;
  /** Minor units, a credit is positive; 0: no money moves. Null: what is available, or left of the hold or what is reversed. */
  amount: number | null;
}

/** What a client wants to happen once. Retries under a key are attempts at the same operation. */
export interface Operation {
  /** Also the reference of all its entries, so that each can be traced to the operation that asked for it. */
  id: string;
  kind: Kind;
  /** Of an atomic bulk in its order, of a capture the holder first, of others in any. */
  legs: readonly [Leg, ...Leg[]];
  /** Two actors may use the same key on one account: each gets an effect of its own. */
  key: string | null;
  actor: Actor;
  /** Of what is done to a hold, of a reversal, and of an update that takes what is there: the amount that the request names. */
  amount?: number;
  /** Of an update: declined unless the account is at this version. */
  expectedVersion?: number;
  /** A hold of the account of the first leg. */
  hold?: HoldTarget;
  /** Event id or transfer id of what is reversed. */
  reverses?: string;
}

export interface HoldTarget {
  holdId: string;
  /** Null: it is not to expire any more. */
  expiresInSeconds?: number | null;
  /** Of a capture: what is left after it is released. */
  isFinal?: boolean;
}

/** Remembered under a key, and so final. Without one they are final too: nobody asks again. */
export const DECLINES = [
  ...(['version_mismatch', 'hold_amount_exceeded', 'reversal_exceeds'] as const),
  ...(['balance_out_of_range', 'max_balance_exceeded', 'insufficient_funds'] as const),
] as const;

/** What a leg was and left, by the answer. */
export interface LegAnswer {
  accountId: string;
  amount: number;
  balance: number;
  version: number;
  epoch: number;
}

export interface Applied {
  kind: 'applied';
  replayed: boolean;
  /** None of a hold that was placed: its answer is the hold. */
  legs: readonly LegAnswer[];
  /** Of the latest leg. */
  createdAt: string;
  transferId: string | null;
  hold: HoldState | null;
}

export interface Declined {
  kind: 'declined';
  code: (typeof DECLINES)[number];
  replayed: boolean;
  /** The account that declined it, as it was. */
  accountId: string;
  balance: number;
  version: number;
}

export type Result =
  | Applied
  | Declined
  /** The service says that this attempt changed nothing, or the connection was refused. */
  | { kind: 'refused'; code: string; hold?: HoldState }
  /** Whether this attempt changed something is not known: it has no answer, or one that says nothing of it. */
  | { kind: 'unknown'; why: string; wasAnswered?: true };

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

export type HoldStatus = 'active' | 'captured' | 'released' | 'expired';

/** A hold as an answer showed it. */
export interface HoldState {
  holdId: string;
  status: HoldStatus;
  amount: number;
  captured: number;
  remaining: number;
  expiresAt: string | null;
  createdAt: string;
  updatedAt: string;
}

/** A hold that an answer showed: to placing it again, to a GET, or to what came too late. */
export interface HoldReading {
  accountId: string;
  startMs: number;
  endMs: number;
  state: HoldState;
}

/** An account that an answer showed: of a GET, a POST or a PATCH. */
export interface Reading {
  accountId: string;
  startMs: number;
  endMs: number;
  state: AccountState;
}

/** A page of the ledger of an account, as asked for and as answered. */
export interface PageReading {
  accountId: string;
  limit: number;
  /** Null: the first page. */
  cursor: number | null;
  endMs: number;
  version: number;
  ledgerVersion: number | null;
  entries: readonly { version: number; amount: number; balance: number }[];
  nextCursor: string | null;
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
  readonly holdReadings: HoldReading[] = [];
  readonly pages: PageReading[] = [];
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

  /** How often each kind of operation was answered as applied, replays included. */
  get applied(): Partial<Record<Kind, number>> {
    const applied: Partial<Record<Kind, number>> = {};
    for (const { operation, result } of this.attempts) {
      if (result.kind === 'applied') applied[operation.kind] = (applied[operation.kind] ?? 0) + 1;
    }
    return applied;
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

/** Of this process: its monotonic clock is the clients' clock. */
export const wallClock = new WallClock();

export function now(): number {
  const ms = performance.now();
  wallClock.read(ms, Date.now());
  return ms;
}
