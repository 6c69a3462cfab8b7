// The newest hash of an account's ledger entries. Anyone who keeps one elsewhere can prove later that nothing up to it was
// rewritten. docs/ledger-chain.md says how it is made.
import type pg from 'pg';
import { z } from 'zod';
import { accountId } from './balance.ts';

/** Before an account's first entry. */
export const GENESIS_HASH = '00'.repeat(32);

export const chainHead = z.strictObject({
  accountId,
  /** Of the last entry that was hashed; null when none was. */
  version: z.int().min(0).nullable(),
  /** SHA-256, in lower-case hexadecimal digits. */
  hash: z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 hexadecimal digits in lower case'),
});
export type ChainHead = z.infer<typeof chainHead>;

/** Heads read or compared in one statement. */
export const HEADS_PAGE_MAX = 10_000;

// LATERAL with LIMIT 1, here and below: a look-up by key, in a table that may have thousands of rows for each account.
const LIST = `
  SELECT account.account_id AS "accountId", head.last_version AS version, encode(head.hash, 'hex') AS hash
  FROM account
  LEFT JOIN LATERAL (
    SELECT last_version, hash FROM ledger_chain chain WHERE chain.account_id = account.account_id ORDER BY last_version DESC LIMIT 1
  ) head ON true
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

const COMPARE = `
  SELECT kept.account_id AS "accountId", kept.version, kept.hash AS "keptHash",
         encode(chain.hash, 'hex') AS "presentHash", newest.last_version AS "newestVersion"
  FROM unnest($1::text[], $2::bigint[], $3::text[]) AS kept (account_id, version, hash)
  LEFT JOIN LATERAL (
    SELECT hash FROM ledger_chain WHERE ledger_chain.account_id = kept.account_id AND ledger_chain.last_version = kept.version LIMIT 1
  ) chain ON true
  LEFT JOIN LATERAL (
    SELECT last_version FROM ledger_chain chain WHERE chain.account_id = kept.account_id ORDER BY last_version DESC LIMIT 1
  ) newest ON true
  WHERE kept.hash IS DISTINCT FROM CASE WHEN kept.version IS NULL THEN '${GENESIS_HASH}' ELSE encode(chain.hash, 'hex') END`;

/** A kept head that is not in the chain of its account any more. */
export interface BrokenHead extends ChainHead {
  /** What does not hold, in a sentence. */
  problem: string;
}

/** Those of the kept heads that the chain contradicts. At most HEADS_PAGE_MAX are given. */
export async function findBrokenHeads(
  client: Pick<pg.ClientBase, 'query'>,
  heads: readonly ChainHead[],
): Promise<BrokenHead[]> {
  const { rows } = await client.query(COMPARE, [
    heads.map((head) => head.accountId),
    heads.map((head) => head.version),
    heads.map((head) => head.hash),
  ]);
  return rows.map(({ accountId, version, keptHash, presentHash, newestVersion }) => ({
    accountId,
    version,
    hash: keptHash,
    problem: problemOf(version, keptHash, presentHash, newestVersion),
  }));
}

function problemOf(version: number | null, keptHash: string, presentHash: string | null, newestVersion: number | null) {
  if (version === null) return `the kept head is of no version, and its hash is ${keptHash} instead of zeros`;
  if (presentHash !== null)
    return `the hash of version ${version} is ${presentHash}, and was ${keptHash} when it was kept`;
  const found = newestVersion === null ? 'there is no chain' : `no segment ends; the chain ends at ${newestVersion}`;
  return `the kept head is of version ${version}, where ${found}`;
}

/** Entries that were hashed together. docs/ledger-chain.md */
export interface ChainSegment {
  firstVersion: number;
  lastVersion: number;
  /** SHA-256, in lower-case hexadecimal digits. */
  hash: string;
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
