// What goes into a lane and what comes out of it.

export interface BalanceUpdate {
  accountId: string;
  /** Minor units, not 0. */
  amount: number;
  reference: string | null;
  idempotencyKey: string | null;
  /** Of the request, see fingerprint.ts; null without a key. */
  fingerprint: string | null;
  traceparent: string | null;
  /** Name of the client whose API key signed the request, null where none is asked for. */
  actor: string | null;
}

/** Remembered under the idempotency key. */
export type Decision = 'applied' | 'insufficient_funds' | 'balance_out_of_range' | 'max_balance_exceeded';

export type UpdateResult =
  | {
      outcome: Decision;
      /** The first answer to this key, given again. */
      replayed: boolean;
      /** Balance, version and epoch that it left, or that it found where it was declined. */
      balance: number;
      version: number;
      epoch: number;
      /** UTC, `2026-11-23T19:43:56.550Z`. */
      createdAt: string;
    }
  | { outcome: 'account_not_found' | 'account_closed' | 'account_frozen' | 'idempotency_key_reused' }
  | { outcome: 'overloaded' | 'unavailable' | 'outcome_unknown' | 'internal' };
