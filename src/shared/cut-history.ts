// Checks whether changes that others have seen are part of this database's history. If the database
// lost commits, they may not be: the version is above the account's, or its epoch shows that it is
// another change. Reads only.
import type pg from 'pg';
import { KEEP_OUTBOX } from './verification.ts';

/** The last change of an account that someone has seen. */
export interface SeenVersion {
  accountId: string;
  version: number;
  epoch: number;
}

/** One that this history lacks. */
export interface LostVersion extends SeenVersion {
  /** Version of the account here; null: there is no such account. */
  presentVersion: number | null;
  /** Epoch of the same version here; null: this history does not reach it. */
  presentEpoch: number | null;
  /** The last version that is the same in both histories; -1: none. */
  sharedVersion: number;
  /** That change, in the form in which subscribe() stores it. */
  shared: { version: number; epoch: number; balance: number; held: number };
}

/** One after which the account has others. */
export interface OlderVersion extends SeenVersion {
  presentVersion: number;
}

/** Versions that are compared in one statement. */
export const SEEN_PAGE_MAX = 1000;

const SEEN =
  'unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS seen (account_id, version, epoch, number)';

// LATERAL with LIMIT 1: look-ups by key, whatever the statistics say.
const FIND_LOST = `
  SELECT lost."accountId", lost.version, lost.epoch, lost."presentVersion", lost."presentEpoch", lost."sharedVersion",
         coalesce(shared.change, '{"version": -1, "epoch": 0, "balance": 0, "held": 0}') AS shared
  FROM (
    SELECT seen.number, seen.account_id AS "accountId", seen.version, seen.epoch, account.version AS "presentVersion",
           entry.epoch AS "presentEpoch", least(last_shared_version(seen.account_id, seen.epoch), seen.version - 1) AS "sharedVersion"
    FROM ${SEEN}
    LEFT JOIN LATERAL (SELECT version FROM account WHERE account.account_id = seen.account_id LIMIT 1) account ON true
    LEFT JOIN LATERAL (${entryOf('epoch', 'seen.account_id', 'seen.version')}) entry ON true
    WHERE entry.epoch IS DISTINCT FROM seen.epoch
  ) lost
  LEFT JOIN LATERAL (
    SELECT json_build_object('version', version, 'epoch', epoch, 'balance', balance, 'held', held) AS change
    FROM (${entryOf('version, epoch, balance, held', 'lost."accountId"', 'lost."sharedVersion"')}) entry
  ) shared ON true
  ORDER BY lost.number`;

function entryOf(columns: string, accountId: string, version: string): string {
  const from = (table: string) =>
    `SELECT ${columns} FROM ${table} WHERE ${table}.account_id = ${accountId} AND ${table}.version = ${version}`;
  return `${from('ledger')} UNION ALL ${from('outbox')} LIMIT 1`;
}

/**
 * The versions that this history lacks, in the order given. A version that is merely older than the
 * account's is not missing.
 * @param client one connection, outside a transaction: not a pool. @param seen at most SEEN_PAGE_MAX.
 */
export async function findLostVersions(
  client: Pick<pg.ClientBase, 'query'>,
  seen: readonly SeenVersion[],
): Promise<LostVersion[]> {
  return withOutboxKept(client, async () => (await client.query<LostVersion>(FIND_LOST, columnsOf(seen))).rows);
}

const FIND_OLDER = `
  SELECT seen.account_id AS "accountId", seen.version, seen.epoch, account.version AS "presentVersion"
  FROM ${SEEN}
  CROSS JOIN LATERAL (SELECT version FROM account WHERE account.account_id = seen.account_id LIMIT 1) account
  WHERE account.version > seen.version
  ORDER BY seen.number`;

/** The versions that are older than the account's, whether this history has them or not. @param seen at most SEEN_PAGE_MAX. */
export async function findOlderVersions(
  client: Pick<pg.ClientBase, 'query'>,
  seen: readonly SeenVersion[],
): Promise<OlderVersion[]> {
  return (await client.query<OlderVersion>(FIND_OLDER, columnsOf(seen))).rows;
}

/** How many accounts, and the sum of their hashes: two sets that agree in both are the same. */
export interface AccountSet {
  count: number;
  sum: bigint;
}

const ACCOUNT_SET =
  'SELECT count(*) AS count, coalesce(sum(hashtextextended(account_id, 0)), 0)::text AS sum FROM account';

/** Those of the listed ones that exist here, each once. @param seen at most SEEN_PAGE_MAX. */
export async function accountsAmong(
  client: Pick<pg.ClientBase, 'query'>,
  seen: readonly SeenVersion[],
): Promise<AccountSet> {
  return accountSet(client, ' WHERE account_id = ANY ($1::text[])', [seen.map(({ accountId }) => accountId)]);
}

export async function allAccounts(client: Pick<pg.ClientBase, 'query'>): Promise<AccountSet> {
  return accountSet(client);
}

async function accountSet(
  client: Pick<pg.ClientBase, 'query'>,
  where = '',
  values: unknown[] = [],
): Promise<AccountSet> {
  const { count, sum } = (await client.query(`${ACCOUNT_SET}${where}`, values)).rows[0];
  return { count, sum: BigInt(sum) };
}

function columnsOf(seen: readonly SeenVersion[]) {
  return [seen.map(({ accountId }) => accountId), seen.map(({ version }) => version), seen.map(({ epoch }) => epoch)];
}

/**
 * A transaction in which each statement finds everything committed, in the outbox or else in the
 * ledger.
 */
export async function withOutboxKept<T>(client: Pick<pg.ClientBase, 'query'>, read: () => Promise<T>): Promise<T> {
  await client.query('BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY');
  try {
    await client.query(KEEP_OUTBOX);
    return await read();
  } finally {
    await client.query('ROLLBACK').catch(() => {}); // if the connection is lost, the previous query has reported it
  }
}
