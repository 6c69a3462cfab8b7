// What the database holds at the end, read straight from its tables.
import type { PoolClient } from 'pg';
import type { Pool } from '../../src/shared/database.ts';
import type { AccountState, HoldState, HoldStatus, Status } from './history.ts';

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
  /** JSON text. */
  metadata: string | null;
  transferId: string | null;
  reverses: string | null;
  holdId: string | null;
  holdStatus: HoldStatus | null;
  holdRemaining: number | null;
  holdExpiresAt: string | null;
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
  /** By account and hold, with a space between. */
  holds: ReadonlyMap<string, HoldState>;
  reversals: readonly { accountId: string; version: number; epoch: number; original: number; reversed: number }[];
  /** By the clock of the database, before all that was read. */
  readAt: string;
}

const ACCOUNTS = `
  SELECT account_id AS id, asset, balance, held, version, epoch, overdraft_limit AS "overdraftLimit",
         max_balance AS "maxBalance", status
  FROM account`;

const LEDGER = `
  SELECT account_id AS "accountId", version, epoch, previous_epoch AS "previousEpoch", type, asset, amount,
         held_change AS "heldChange", balance, held, reference, actor, metadata,
         transfer_id AS "transferId", reverses, hold_id AS "holdId", hold_status AS "holdStatus",
         hold_remaining AS "holdRemaining", hold_expires_at AS "holdExpiresAt", overdraft_limit AS "overdraftLimit",
         max_balance AS "maxBalance", status, created_at AS "createdAt"
  FROM ledger ORDER BY account_id, version`;

const HOLDS = `
  SELECT account_id AS "accountId", hold_id AS "holdId", amount, captured, remaining, status, expires_at AS "expiresAt",
         created_at AS "createdAt", updated_at AS "updatedAt"
  FROM hold`;

const REVERSALS = `SELECT account_id AS "accountId", version, epoch, original, reversed FROM reversal`;

/** Of all times in a row the text that answers and events have. */
function withTexts<T>(row: object): T {
  const members = Object.entries(row).map(([name, value]) => [
    name,
    value instanceof Date ? value.toISOString() : value,
  ]);
  return Object.fromEntries(members) as T;
}

/** In one snapshot. */
export async function readFinalState(pool: Pool): Promise<FinalState> {
  const client = await pool.connect();
  try {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    return await readAll(client);
  } finally {
    await client.query('ROLLBACK');
    client.release();
  }
}

async function readAll(client: PoolClient): Promise<FinalState> {
  const clock = await client.query<{ now: Date }>('SELECT clock_timestamp() AS now');
  const accounts = await client.query<AccountState & { id: string; epoch: number }>(ACCOUNTS);
  const entries = await client.query(LEDGER);
  const epochs = await client.query<{ epoch: number }>('SELECT epoch FROM epoch ORDER BY epoch');
  const holds = (await client.query(HOLDS)).rows.map((row) => withTexts<HoldState & { accountId: string }>(row));
  const ledger = new Map<string, Entry[]>();
  for (const row of entries.rows) {
    const entry = withTexts<Entry>(row);
    const ofAccount = ledger.get(entry.accountId);
    if (ofAccount) ofAccount.push(entry);
    else ledger.set(entry.accountId, [entry]);
  }
  return {
    accounts: new Map(accounts.rows.map(({ id, ...state }) => [id, state])),
    ledger,
    epochs: epochs.rows.map(({ epoch }) => epoch),
    holds: new Map(holds.map(({ accountId, ...state }) => [`${accountId} ${state.holdId}`, state])),
    reversals: (await client.query(REVERSALS)).rows,
    readAt: (clock.rows[0] as { now: Date }).now.toISOString(),
  };
}
