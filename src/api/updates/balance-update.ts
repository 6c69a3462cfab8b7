// What goes into a lane and what comes out of it.

export interface BalanceUpdate {
  accountId: string;
  /** Minor units, not 0. */
  amount: number;
  reference: string | null;
  idempotencyKey: string | null;
  traceparent: string | null;
  /** Name of the client whose API key signed the request, null where none is asked for. */
  actor: string | null;
}

export type UpdateResult =
  | {
      outcome: 'applied' | 'insufficient_funds' | 'balance_out_of_range';
      /** The first answer to this key, given again. */
      replayed: boolean;
      balance: number;
      version: number;
      createdAt: Date;
    }
  | { outcome: 'account_not_found' | 'account_frozen' | 'idempotency_key_reused' }
  | { outcome: 'overloaded' | 'unavailable' | 'outcome_unknown' | 'internal' };
