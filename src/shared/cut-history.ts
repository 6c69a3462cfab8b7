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
}

/** Versions that are compared in one statement. */
export const SEEN_PAGE_MAX = 1000;

// LATERAL with LIMIT 1: look-ups by key, whatever the statistics say.
const FIND_LOST = `
  SELECT seen.account_id AS "accountId", seen.version, seen.epoch, account.version AS "presentVersion", entry.epoch AS "presentEpoch",
         least(last_shared_version(seen.account_id, seen.epoch), seen.version - 1) AS "sharedVersion"
  FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS seen (account_id, version, epoch, number)
  LEFT JOIN LATERAL (SELECT version FROM account WHERE account.account_id = seen.account_id LIMIT 1) account ON true
  LEFT JOIN LATERAL (
    SELECT epoch FROM ledger WHERE ledger.account_id = seen.account_id AND ledger.version = seen.version
    UNION ALL
    SELECT epoch FROM outbox WHERE outbox.account_id = seen.account_id AND outbox.version = seen.version
    LIMIT 1
  ) entry ON true
  WHERE entry.epoch IS DISTINCT FROM seen.epoch
  ORDER BY seen.number`;

/**
 * The versions that this history lacks, in the order given. A version that is merely older than the
 * account's is not missing.
 * @param client one connection, outside a transaction: not a pool. @param seen at most SEEN_PAGE_MAX.
 */
export async function findLostVersions(
  client: Pick<pg.ClientBase, 'query'>,
  seen: readonly SeenVersion[],
): Promise<LostVersion[]> {
  return withOutboxKept(client, async () => {
    const { rows } = await client.query<LostVersion>(FIND_LOST, [
      seen.map(({ accountId }) => accountId),
      seen.map(({ version }) => version),
      seen.map(({ epoch }) => epoch),
    ]);
    return rows;
  });
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
