// SQL for accounts: everything but balance updates and histories. All of it is safe to retry.
import { AMOUNT_MAX } from '../../shared/balance.ts';
import { GENESIS_HASH } from '../../shared/chain-head.ts';
import type { ChainHead } from '../../shared/contract.ts';
import type { Pool } from '../../shared/database.ts';

export interface Account {
  id: string;
  asset: string;
  balance: number;
  held: number;
  available: number;
  version: number;
  overdraftLimit: number;
  maxBalance: number | null;
  status: 'open' | 'frozen' | 'closed';
  createdAt: Date;
  updatedAt: Date;
}

/** @param row an expression whose fields are the columns of the table account. */
const columnsOf = (row: string) => `
  ${row}.account_id AS id, ${row}.asset, ${row}.balance, ${row}.held,
  least(${row}.balance + ${row}.overdraft_limit - ${row}.held, ${AMOUNT_MAX}) AS available, ${row}.version,
  ${row}.overdraft_limit AS "overdraftLimit", ${row}.max_balance AS "maxBalance", ${row}.status,
  ${row}.created_at AS "createdAt", ${row}.updated_at AS "updatedAt"`;

/** The client that requests a change, and its trace: both are published with its event. */
export interface Origin {
  actor: string | null;
  traceparent: string | null;
}

export interface WantedAccount {
  id: string;
  asset: string;
  overdraftLimit: number;
  maxBalance: number | null;
}

const OPEN = `SELECT result.opened, (result.account).epoch, ${columnsOf('(result.account)')} FROM open_account($1, $2, $3, $4, $5, $6) AS result`;

/** The account, of which epoch, and whether this call opened it; an account that was there is returned as it is. */
export async function openAccount(
  pool: Pool,
  { id, asset, overdraftLimit, maxBalance }: WantedAccount,
  { actor, traceparent }: Origin,
): Promise<{ account: Account; epoch: number; opened: boolean }> {
  const values = [id, asset, overdraftLimit, maxBalance, actor, traceparent];
  const { rows } = await pool.query<Account & { epoch: number; opened: boolean }>(OPEN, values);
  const { opened, epoch, ...account } = rows[0] as (typeof rows)[number];
  return { account, epoch, opened };
}

const SELECT = `SELECT ${columnsOf('account')} FROM account WHERE account_id = $1`;

export async function findAccount(pool: Pool, id: string): Promise<Account | undefined> {
  return (await pool.query<Account>(SELECT, [id])).rows[0];
}

// `~` is after every character that an id may have, and order is that of bytes.
const LIST = `
  SELECT ${columnsOf('account')} FROM account
  WHERE account_id > $1 AND account_id >= $2 AND account_id < $2 || '~'
  ORDER BY account_id
  LIMIT $3`;

/**
 * Accounts whose id begins with a prefix, in order of id, after a given one. Costs what it returns,
 * however many there are.
 */
export async function listAccounts(pool: Pool, behindId: string, prefix: string, limit: number): Promise<Account[]> {
  return (await pool.query<Account>(LIST, [behindId, prefix, limit])).rows;
}

const CHANGE = `
  SELECT result.outcome, (result.account).epoch, ${columnsOf('(result.account)')} FROM change_account($1, $2, $3, $4) AS result`;

/** maxBalance null: no limit. */
export interface AccountChange {
  overdraftLimit?: number | undefined;
  maxBalance?: number | null | undefined;
  status?: Account['status'] | undefined;
}

export type ChangeRefusal =
  | 'overloaded'
  | 'account_not_found'
  | 'account_closed'
  | 'overdraft_limit_too_low'
  | 'account_not_empty';

/**
 * Changes limits or status, or returns why not. One statement, so the decision and the returned
 * state are consistent.
 * @returns the epoch only where something changed.
 */
export async function changeAccount(
  pool: Pool,
  id: string,
  change: AccountChange,
  { actor, traceparent }: Origin,
): Promise<{ account: Account; epoch: number | undefined } | ChangeRefusal> {
  const values = [id, JSON.stringify(change), actor, traceparent];
  const { rows } = await pool.query<Account & { outcome: 'changed' | 'unchanged' | ChangeRefusal; epoch: number }>(
    CHANGE,
    values,
  );
  const { outcome, epoch, ...account } = rows[0] as (typeof rows)[number];
  if (outcome !== 'changed' && outcome !== 'unchanged') return outcome;
  return { account, epoch: outcome === 'changed' ? epoch : undefined };
}

const CHAIN_HEAD = `
  SELECT account.account_id AS "accountId", head.last_version AS version, entry.epoch,
         coalesce(encode(head.hash, 'hex'), '${GENESIS_HASH}') AS hash
  FROM account
  LEFT JOIN LATERAL (
    SELECT last_version, hash FROM ledger_chain WHERE ledger_chain.account_id = $1 ORDER BY last_version DESC LIMIT 1
  ) head ON true
  LEFT JOIN LATERAL (
    SELECT epoch FROM ledger WHERE ledger.account_id = $1 AND ledger.version = head.last_version LIMIT 1
  ) entry ON true
  WHERE account.account_id = $1`;

/** Undefined when there is no such account. */
export async function findChainHead(pool: Pool, id: string): Promise<ChainHead | undefined> {
  return (await pool.query<ChainHead>(CHAIN_HEAD, [id])).rows[0];
}
