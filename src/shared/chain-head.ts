// The newest hash of an account's ledger entries. Anyone who keeps one elsewhere can prove later
// that nothing up to it was rewritten. docs/ledger-chain.md describes how it is computed.
import type pg from 'pg';
import { accountId, epoch } from './balance.ts';
import type { ChainHead, ChainSegment } from './contract.ts';
import { z } from './zod.ts';

/** Before an account's first entry. */
export const GENESIS_HASH = '00'.repeat(32);

export const chainHead = z.strictObject({
  accountId,
  /** Of the last entry that was hashed; null when none was. */
  version: z.int().min(0).nullable(),
  /**
   * The epoch of that entry: identifies the history of the account if the database loses commits.
   *
   */
  epoch: epoch.nullable(),
  /** SHA-256, in lower-case hexadecimal digits. */
  hash: z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 hexadecimal digits in lower case'),
});

/** Heads read in one statement. */
export const HEADS_PAGE_MAX = 10_000;

// LATERAL with LIMIT 1: a look-up by key, in a table that may have thousands of rows for each account.
const LIST = `
  SELECT account.account_id AS "accountId", head.last_version AS version, entry.epoch, encode(head.hash, 'hex') AS hash
  FROM account
  LEFT JOIN LATERAL (
    SELECT last_version, hash FROM ledger_chain chain WHERE chain.account_id = account.account_id ORDER BY last_version DESC LIMIT 1
  ) head ON true
  LEFT JOIN LATERAL (
    SELECT epoch FROM ledger WHERE ledger.account_id = account.account_id AND ledger.version = head.last_version LIMIT 1
  ) entry ON true
  WHERE account.account_id > $1
  ORDER BY account.account_id
  LIMIT ${HEADS_PAGE_MAX}`;

/** The heads of all accounts that have one, by account id, in pages. Heads move on meanwhile. */
export async function* listChainHeads(client: Pick<pg.ClientBase, 'query'>): AsyncGenerator<ChainHead[]> {
  for (let behind = ''; ; ) {
    const { rows } = await client.query<ChainHead>(LIST, [behind]);
    yield rows.filter(({ version }) => version !== null);
    if (rows.length < HEADS_PAGE_MAX) return;
    behind = (rows.at(-1) as ChainHead).accountId;
  }
}

const SEGMENTS = `
  SELECT first_version AS "firstVersion", last_version AS "lastVersion", encode(hash, 'hex') AS hash
  FROM ledger_chain WHERE account_id = $1 AND last_version > $2 ORDER BY last_version LIMIT $3`;

/** The segments of an account that end after a version, oldest first, at most `limit`. */
export async function listChainSegments(
  client: Pick<pg.ClientBase, 'query'>,
  accountId: string,
  afterVersion: number,
  limit: number,
): Promise<ChainSegment[]> {
  return (await client.query<ChainSegment>(SEGMENTS, [accountId, afterVersion, limit])).rows;
}
