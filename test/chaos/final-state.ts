// What the database holds at the end, read straight from its tables.
import type { Pool } from '../../src/shared/database.ts';
import type { AccountState, Status } from './history.ts';

/** What does not apply is null. */
export interface Entry {
  accountId: string;
  version: number;
  epoch: number;
  previousEpoch: number | null;
  type: string;
  asset: string;
  amount: number;
  heldChange: number;
  balance: number;
  held: number;
  reference: string | null;
  actor: string | null;
  overdraftLimit: number | null;
  maxBalance: number | null;
  status: Status | null;
  createdAt: string;
}

export interface FinalState {
  accounts: ReadonlyMap<string, AccountState & { epoch: number }>;
  /** By account, in order of version. */
  ledger: ReadonlyMap<string, Entry[]>;
  /** In order. */
  epochs: readonly number[];
}

const ACCOUNTS = `
  SELECT account_id AS id, asset, balance, held, version, epoch, overdraft_limit AS "overdraftLimit",
         max_balance AS "maxBalance", status
  FROM account`;

const LEDGER = `
  SELECT account_id AS "accountId", version, epoch, previous_epoch AS "previousEpoch", type, asset, amount,
         held_change AS "heldChange", balance, held, reference, actor, overdraft_limit AS "overdraftLimit",
         max_balance AS "maxBalance", status, created_at AS "createdAt"
  FROM ledger ORDER BY account_id, version`;

export async function readFinalState(pool: Pool): Promise<FinalState> {
  const accounts = await pool.query<AccountState & { id: string; epoch: number }>(ACCOUNTS);
  const entries = await pool.query<Omit<Entry, 'createdAt'> & { createdAt: Date }>(LEDGER);
  const epochs = await pool.query<{ epoch: number }>('SELECT epoch FROM epoch ORDER BY epoch');
  const ledger = new Map<string, Entry[]>();
  for (const row of entries.rows) {
    const entry = { ...row, createdAt: row.createdAt.toISOString() };
    const ofAccount = ledger.get(entry.accountId);
    if (ofAccount) ofAccount.push(entry);
    else ledger.set(entry.accountId, [entry]);
  }
  return {
    accounts: new Map(accounts.rows.map(({ id, ...state }) => [id, state])),
    ledger,
    epochs: epochs.rows.map(({ epoch }) => epoch),
  };
}
