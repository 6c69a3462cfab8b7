// Checks whether heads that were kept elsewhere are still in the hash chains. If one is not,
// someone rewrote the ledger or the database lost commits. The database cannot know which, so the
// operator states which restores are known.
import type pg from 'pg';
import { GENESIS_HASH } from './chain-head.ts';
import { SEGMENT_ENTRIES_MAX } from './chain-problems.ts';
import type { ChainHead } from './contract.ts';
import { withOutboxKept } from './cut-history.ts';

/** Heads compared in one statement. */
export const KEPT_HEADS_PAGE_MAX = 10_000;
/** Ends of segments before a head from which its hash is computed again: 12 ms each at most. */
const BEGINNINGS_MAX = 8;

/**
 * The end of the segment from which a head follows, a row `kept` beside it; no row where the chain
 * contradicts the head. It is the head itself, or else the end of an earlier segment, from which the
 * hash of the head is computed again: after a cut, entries are hashed with other boundaries. Only if
 * the entry has the same epoch. Version -1 stands for the opening.
 */
export const CHAIN_END = `
  SELECT last_version, hash FROM ledger_chain chain
  WHERE chain.account_id = kept.account_id AND chain.last_version = kept.version AND chain.hash = decode(kept.hash, 'hex')
  UNION ALL
  SELECT last_version, hash FROM (
    (
      SELECT last_version, hash FROM ledger_chain chain
      WHERE chain.account_id = kept.account_id AND chain.last_version BETWEEN kept.version - ${SEGMENT_ENTRIES_MAX} AND kept.version - 1
      ORDER BY last_version DESC LIMIT ${BEGINNINGS_MAX}
    )
    UNION ALL
    SELECT -1, decode('${GENESIS_HASH}', 'hex') WHERE kept.version < ${SEGMENT_ENTRIES_MAX}
  ) before
  WHERE EXISTS (
      SELECT FROM ledger WHERE ledger.account_id = kept.account_id AND ledger.version = kept.version AND ledger.epoch = kept.epoch
    )
    AND kept.hash = (
      SELECT encode(ledger_segment_hash(before.hash, kept.account_id, string_agg(entry.text, '],[')), 'hex')
      FROM (
        SELECT ledger_entry_text(ledger) AS text FROM ledger
        WHERE ledger.account_id = kept.account_id AND ledger.version BETWEEN before.last_version + 1 AND kept.version
        ORDER BY ledger.version LIMIT ${SEGMENT_ENTRIES_MAX}
      ) entry
    )
  LIMIT 1`;

const COMPARE = `
  SELECT kept.account_id AS "accountId", kept.version, kept.epoch, kept.hash,
         encode(chain.hash, 'hex') AS "presentHash", newest.last_version AS "newestVersion",
         cut.epoch AS "cutEpoch", cut.raised_at AS "cutAt",
         CASE WHEN cut.epoch IS NOT NULL THEN last_shared_version(kept.account_id, cut.epoch - 1) END AS "sharedVersion"
  FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[]) WITH ORDINALITY AS kept (account_id, version, epoch, hash, number)
  LEFT JOIN LATERAL (
    SELECT hash FROM ledger_chain WHERE ledger_chain.account_id = kept.account_id AND ledger_chain.last_version = kept.version LIMIT 1
  ) chain ON true
  LEFT JOIN LATERAL (
    SELECT last_version FROM ledger_chain chain WHERE chain.account_id = kept.account_id ORDER BY last_version DESC LIMIT 1
  ) newest ON true
  LEFT JOIN LATERAL (
    SELECT epoch, raised_at FROM epoch WHERE epoch.epoch > kept.epoch ORDER BY epoch.epoch LIMIT 1
  ) cut ON true
  WHERE CASE WHEN kept.version IS NULL THEN kept.hash <> '${GENESIS_HASH}' ELSE NOT EXISTS (${CHAIN_END}) END
  ORDER BY kept.number`;

interface Contradicted extends ChainHead {
  presentHash: string | null;
  newestVersion: number | null;
  /**
   * The first epoch of this history above the head's: if commits after the head were lost, they
   * were lost when it began.
   */
  cutEpoch: number | null;
  cutAt: Date | null;
  /** The last version before that. */
  sharedVersion: number | null;
}

/** A kept head that is no longer in the chain of its account. */
export interface BrokenHead extends ChainHead {
  /** What is wrong, in a sentence. */
  problem: string;
  /** The epoch whose beginning would explain it, if the database lost commits then; undefined: none does. */
  cutEpoch: number | undefined;
}

/**
 * The kept heads that the chain contradicts, in the order given. Takes at most KEPT_HEADS_PAGE_MAX.
 */
export async function findBrokenHeads(
  client: Pick<pg.ClientBase, 'query'>,
  heads: readonly ChainHead[],
): Promise<BrokenHead[]> {
  return withOutboxKept(client, () => findBrokenHeadsHere(client, heads));
}

/** The same, in a transaction that keeps the outbox. */
export async function findBrokenHeadsHere(
  client: Pick<pg.ClientBase, 'query'>,
  heads: readonly ChainHead[],
): Promise<BrokenHead[]> {
  const { rows } = await client.query<Contradicted>(COMPARE, columnsOf(heads));
  return rows.map((head) => {
    const { accountId, version, epoch, hash } = head;
    return { accountId, version, epoch, hash, problem: problemOf(head), cutEpoch: cutOf(head) };
  });
}

/** Parameters of statements about heads. */
export const columnsOf = (heads: readonly ChainHead[]) => [
  heads.map(({ accountId }) => accountId),
  heads.map(({ version }) => version),
  heads.map(({ epoch }) => epoch),
  heads.map(({ hash }) => hash),
];

/** No cut explains a contradiction in the shared part of the history. */
function cutOf({ version, cutEpoch, sharedVersion }: Contradicted): number | undefined {
  if (version === null || cutEpoch === null || sharedVersion === null) return undefined;
  return version > sharedVersion ? cutEpoch : undefined;
}

function problemOf(head: Contradicted): string {
  const { version, epoch, hash, presentHash, newestVersion, cutAt } = head;
  if (version === null) return `the kept head has no version, but its hash is ${hash} instead of zeros`;
  const cutEpoch = cutOf(head);
  const advice =
    cutEpoch === undefined
      ? ''
      : `. Epoch ${cutEpoch} began at ${cutAt?.toISOString()}, after it: use --cut-at ${cutEpoch} if the database was restored then`;
  if (presentHash !== null) {
    return `the hash of version ${version} is ${presentHash}, and was ${hash} when it was kept, in epoch ${epoch}${advice}`;
  }
  const found = newestVersion === null ? 'there is no chain' : `no segment ends; the chain ends at ${newestVersion}`;
  return `the kept head has version ${version} in epoch ${epoch}, where ${found}${advice}`;
}
