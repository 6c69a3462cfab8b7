// The input and output of a lane. An operation takes effect as a whole or not at all.

/** A change of one account. */
export interface Leg {
  accountId: string;
  /**
   * Minor units, a credit is positive. For a hold: the amount set aside or released, or the new
   * total. Null: all that is left, or unchanged.
   */
  amount: number | null;
  reference: string | null;
  /** JSON text, as it is stored and hashed. */
  metadata: string | null;
  /** Otherwise the update is declined as version_mismatch; null: any version. Only for updates. */
  expectedVersion: number | null;
  /** Takes what is available, at most `amount` and at least 1. Only for debits. */
  upTo: boolean;
}

export type Kind =
  | 'update'
  /** Legs by account, each account once, with the sum 0. */
  | 'transfer'
  /** Updates, all or none. */
  | 'atomic'
  /** Legs with the opposite amounts of the original; `_rest`: as much of it as is left. */
  | 'reversal'
  | 'reversal_rest'
  | 'hold'
  /**
   * The first leg takes a negative amount of the hold, or null; a second leg gets it. `_final`
   * releases the rest.
   */
  | 'capture'
  | 'capture_final'
  | 'release'
  | 'hold_change';

export interface Operation {
  kind: Kind;
  legs: readonly [Leg, ...Leg[]];
  /** The account that its key belongs to: the lowest debited one, or the lowest. */
  keyAccountId: string;
  idempotencyKey: string | null;
  /** Of the request, see fingerprint.ts; null where there is no key. Holds always have one. */
  fingerprint: string | null;
  /** Name of the client whose API key the request was sent with, null if authentication is off. */
  actor: string | null;
  traceparent: string | null;
  /** A decline is answered as rate_limited and not remembered, see decline-limit.ts. */
  isDeclineForgotten?: boolean;
  hold?: HoldTarget;
  reversal?: ReversalTarget;
}

/** A hold of the account of the first leg. */
export interface HoldTarget {
  holdId: string;
  /** Until it expires; 0: never; null: as it is, or never for a new one. */
  expiresInS: number | null;
}

/** The change that is reversed, by its lowest debited leg. */
export interface ReversalTarget {
  accountId: string;
  version: number;
  epoch: number;
  /** How much it was, without a sign; null: it cannot be reversed. */
  original: number | null;
  /** Event id of the change, or id of the transfer. */
  id: string;
}

/** Times are milliseconds since 1970. */
export interface HoldState {
  amount: number;
  captured: number;
  remaining: number;
  status: 'active' | 'captured' | 'released' | 'expired';
  expiresAt: number | null;
  createdAt: number;
  updatedAt: number;
}

/** What a leg left, or what was found where it was declined. */
export interface LegResult {
  amount: number;
  balance: number;
  version: number;
  epoch: number;
  /** UTC, `2026-11-23T19:43:56.550Z`. */
  createdAt: string;
}

/** Remembered under the idempotency key, as what was applied is. */
export type Decline =
  | 'version_mismatch'
  | 'hold_amount_exceeded'
  | 'reversal_exceeds'
  | 'balance_out_of_range'
  | 'max_balance_exceeded'
  | 'insufficient_funds';

/** Not remembered: the same request can be applied later. */
export type Refusal =
  | 'idempotency_key_reused'
  | 'hold_exists'
  | 'account_not_found'
  | 'account_closed'
  | 'account_frozen'
  | 'asset_mismatch'
  | 'hold_not_found'
  | 'hold_closed'
  | 'hold_expired'
  | 'not_reversible'
  | 'already_reversed';

/** `replayed`: the first answer to the key, or to the hold, given again. */
export type OperationResult =
  | { outcome: 'applied'; replayed: boolean; legs: (LegResult | null)[]; hold: HoldState | null }
  /** `leg`: the number of the leg that was declined, from 0. */
  | { outcome: Decline; replayed: boolean; leg: number; found: LegResult }
  | { outcome: Refusal; leg: number; hold: HoldState | null }
  /** Would have been declined, but no more declines of its client are remembered. */
  | { outcome: 'rate_limited'; leg: number; hold: HoldState | null }
  /**
   * `overloaded` by the evaluator: the leg whose account has more due holds than a batch expires.
   */
  | { outcome: 'overloaded'; leg?: number; hold?: HoldState | null }
  | { outcome: 'unavailable' | 'outcome_unknown' | 'internal' };

export type Outcome = OperationResult['outcome'];
