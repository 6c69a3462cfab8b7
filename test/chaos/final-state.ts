// What the database holds at the end, read straight from its tables.
import type { Pool } from '../../src/shared/database.ts';

export interface Entry {
  accountId: string;
  version: number;
  amount: number;
  balance: number;
  reference: string | null;
  createdAt: string;
}

export interface FinalState {
  accounts: ReadonlyMap<string, { balance: number; version: number }>;
  /** By account, in order of version. */
  ledger: ReadonlyMap<string, Entry[]>;
}

export async function readFinalState(pool: Pool): Promise<FinalState> {
  const accounts = await pool.query<{ id: string; balance: number; version: number }>(
    'SELECT account_id AS id, balance, version FROM account',
  );
  const entries = await pool.query<Entry & { createdAt: Date }>(
    `SELECT account_id AS "accountId", version, amount, balance, reference, created_at AS "createdAt"
     FROM ledger ORDER BY account_id, version`,
  );
  const ledger = new Map<string, Entry[]>();
  for (const row of entries.rows) {
    const entry = { ...row, createdAt: row.createdAt.toISOString() };
    const ofAccount = ledger.get(entry.accountId);
    if (ofAccount) ofAccount.push(entry);
    else ledger.set(entry.accountId, [entry]);
  }
  return { accounts: new Map(accounts.rows.map(({ id, ...state }) => [id, state])), ledger };
}
