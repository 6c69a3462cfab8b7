// SQL for accounts: everything but balance updates and histories. All of it can be repeated safely.
import { type ChainHead, GENESIS_HASH } from '../../shared/chain-head.ts';
import type { Pool } from '../../shared/database.ts';

export interface Account {
  id: string;
  balance: number;
  version: number;
  overdraftLimit: number;
  status: 'open' | 'frozen';
  createdAt: Date;
  updatedAt: Date;
}

const COLUMNS = `account_id AS id, balance, version, overdraft_limit AS "overdraftLimit", status,
  created_at AS "createdAt", updated_at AS "updatedAt"`;

const INSERT = `
  INSERT INTO account (account_id, overdraft_limit, created_at, updated_at) VALUES ($1, $2, $3, $3)
  ON CONFLICT (account_id) DO NOTHING
  RETURNING ${COLUMNS}`;
const SELECT = `SELECT ${COLUMNS} FROM account WHERE account_id = $1`;

/** The account, and whether this call made it; an account that was there is returned as it is. */
export async function createAccount(
  pool: Pool,
  id: string,
  overdraftLimit: number,
): Promise<{ account: Account; created: boolean }> {
  const inserted = await pool.query<Account>(INSERT, [id, overdraftLimit, new Date().toISOString()]);
  const [created] = inserted.rows;
  if (created) return { account: created, created: true };
  const existing = await findAccount(pool, id);
  if (!existing) throw new Error('an account is in the way and cannot be read'); // accounts are never deleted
  return { account: existing, created: false };
}

export async function findAccount(pool: Pool, id: string): Promise<Account | undefined> {
  return (await pool.query<Account>(SELECT, [id])).rows[0];
}

// `~` is behind every character that an id may have, and order is that of bytes.
const LIST = `
  SELECT ${COLUMNS} FROM account
  WHERE account_id > $1 AND account_id >= $2 AND account_id < $2 || '~'
  ORDER BY account_id
  LIMIT $3`;

/** Accounts whose id begins with a prefix, in order of id, behind a given one. Costs what it returns, however many there are. */
export async function listAccounts(pool: Pool, behindId: string, prefix: string, limit: number): Promise<Account[]> {
  return (await pool.query<Account>(LIST, [behindId, prefix, limit])).rows;
}

// The constraint account_not_overdrawn would refuse the same, as an error.
const UPDATE = `
  UPDATE account
  SET overdraft_limit = coalesce($2, overdraft_limit), status = coalesce($3, status), updated_at = greatest($4, updated_at)
  WHERE account_id = $1 AND balance >= -coalesce($2, overdraft_limit)
  RETURNING ${COLUMNS}`;

export type AccountChange = { overdraftLimit?: number | undefined; status?: Account['status'] | undefined };

/** Changes limit or status, or says why not. */
export async function changeAccount(
  pool: Pool,
  id: string,
  change: AccountChange,
): Promise<Account | 'account_not_found' | 'overdraft_limit_too_low'> {
  const values = [id, change.overdraftLimit ?? null, change.status ?? null, new Date().toISOString()];
  const [changed] = (await pool.query<Account>(UPDATE, values)).rows;
  if (changed) return changed;
  return (await findAccount(pool, id)) ? 'overdraft_limit_too_low' : 'account_not_found';
}

const CHAIN_HEAD = `
  SELECT account.account_id AS "accountId", coalesce(head.version, 0) AS version,
         coalesce(encode(head.hash, 'hex'), '${GENESIS_HASH}') AS hash
  FROM account
  LEFT JOIN LATERAL (
    SELECT version, hash FROM ledger_chain WHERE ledger_chain.account_id = $1 ORDER BY version DESC LIMIT 1
  ) head ON true
  WHERE account.account_id = $1`;

/** Undefined when there is no such account. */
export async function findChainHead(pool: Pool, id: string): Promise<ChainHead | undefined> {
  return (await pool.query<ChainHead>(CHAIN_HEAD, [id])).rows[0];
}
