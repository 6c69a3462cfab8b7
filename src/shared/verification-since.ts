// Verifies what came after heads that someone kept: the entries, segments, holds, transfers and
// reversals since then, and the present row of every account. In one snapshot, like verify. The time
// grows with what is new, with the accounts and with the active holds, and not with what is older.
//
// An account begins at its kept head. Its entry there is what the newer ones have to follow, so in an
// account with newer ones the segment of the head is hashed again: if the hash is the one that was
// kept, balance and held amount there are what they were. An account without a head begins at its
// opening. Older entries are only looked up where a newer one belongs to them: of the same hold, the
// same transfer, the same change that is reversed.
import type pg from 'pg';
import { GENESIS, hashDue, nameOfVersions } from './chain-problems.ts';
import type { ChainHead } from './contract.ts';
import { type Beginning, historyProblems, limitsOf } from './history-problems.ts';
import { CHAIN_END, columnsOf } from './kept-heads.ts';
import { accountOf, MARKED, versionOf } from './money-problems.ts';
import {
  COUNT_JUDGED,
  Findings,
  IN_STEP,
  inSnapshot,
  type Judged,
  STEP_ACCOUNTS_MAX,
  STEP_CHANGES,
  type Verification,
} from './verification.ts';

export interface VerificationSince extends Verification {
  /** Accounts that were verified from their opening, since no head of theirs was kept. */
  accountsWithoutHead: number;
}

/**
 * An entry is found by key, and expressions of a step are joined as a whole, whatever the planner
 * expects of them: it cannot know how much is new.
 */
export const PLAN_SINCE = `
  SET LOCAL enable_nestloop = off; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_indexscan = on;
  SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off`;

// ORDER BY and OFFSET 0 make each of these a look-up by key for each row that it is about.
const AFTER_HEAD = (table: string, version: string, columns = 'found.*') => `
    SELECT ${columns} FROM beginning CROSS JOIN LATERAL (
      SELECT * FROM ${table}
      WHERE ${table}.account_id = beginning.account_id AND ${table}.${version} > beginning.head_version
      ORDER BY ${table}.${version} OFFSET 0
    ) found`;

/** All rows of the accounts that begin at their opening. */
const WITHOUT_HEAD = (table: string) => `
    SELECT found.* FROM beginning CROSS JOIN LATERAL (
      SELECT * FROM ${table} WHERE ${table}.account_id = beginning.account_id ORDER BY ${table}.account_id OFFSET 0
    ) found
    WHERE beginning.head_version = -1`;

/** Entries up to the head that belong to newer ones, by a column that has an index. */
const BEFORE_HEAD = (touched: string, column: string) => `
    SELECT earlier.* FROM ${touched} touched JOIN head USING (account_id) CROSS JOIN LATERAL (
      SELECT ${MARKED} FROM whole_ledger entry
      WHERE entry.account_id = touched.account_id AND entry.${column} = touched.${column} AND entry.version <= head.head_version
      ORDER BY entry.version OFFSET 0
    ) earlier`;

const SINCE_HEADS: Beginning = {
  entries: 'entries LEFT JOIN known USING (account_id)',
  before: {
    version: 'coalesce(known_version, -1::bigint)',
    balance: 'coalesce(known_balance, 0::bigint)',
    held: 'coalesce(known_held, 0::bigint)',
    epoch: 'known_epoch',
  },
  histories: `
    SELECT account_id, coalesce(entries, 0) AS entries, coalesce(pending, 0) AS pending, coalesce(last_version, known_version) AS last_version,
           coalesce(total, 0) + coalesce(known_balance, 0) AS total, coalesce(total_held, 0) + coalesce(known_held, 0) AS total_held,
           coalesce(limits, known_limits) AS limits, coalesce(last_epoch, known_epoch) AS last_epoch,
           opened_at, coalesce(changed_at, known_at) AS changed_at,
           least(asset, known_asset) AS asset, greatest(other_asset, known_asset) AS other_asset,
           CASE WHEN known_version IS NOT NULL AND known_epoch IS NULL THEN known_version ELSE missing_version END AS missing_version,
           repeated_version, broken_version, broken_held_version, broken_epoch_version
    FROM histories_read FULL JOIN known USING (account_id)`,
  chain: { version: 'head_version', hash: 'head_hash' },
  money: {
    expressions: `
  touched_hold AS MATERIALIZED (
    SELECT DISTINCT account_id, hold_id FROM marked JOIN head USING (account_id) WHERE hold_id IS NOT NULL
  ),
  hold AS MATERIALIZED (
    SELECT found.* FROM touched_hold CROSS JOIN LATERAL (
      SELECT * FROM hold WHERE hold.account_id = touched_hold.account_id AND hold.hold_id = touched_hold.hold_id LIMIT 1
    ) found
    UNION ALL ${WITHOUT_HEAD('hold')}
  ),
  hold_marked AS (
    SELECT ${MARKED} FROM marked WHERE hold_id IS NOT NULL
    UNION ALL ${BEFORE_HEAD('touched_hold', 'hold_id')}
  ),
  touched_reversal AS MATERIALIZED (SELECT DISTINCT account_id, reverses FROM marked WHERE reverses IS NOT NULL),
  reversing_marked AS (
    SELECT ${MARKED} FROM marked WHERE reverses IS NOT NULL
    UNION ALL ${BEFORE_HEAD('touched_reversal', 'reverses')}
  ),
  reversal AS MATERIALIZED (
${AFTER_HEAD('reversal', 'version')}
    UNION
    SELECT found.* FROM touched_reversal CROSS JOIN LATERAL (
      SELECT * FROM reversal
      WHERE reversal.account_id = touched_reversal.account_id AND reversal.account_id = ${accountOf('touched_reversal.reverses')}
        AND reversal.version = ${versionOf('touched_reversal.reverses')}
      ORDER BY reversal.version OFFSET 0
    ) found
  ),`,
    holdEntries: 'hold_marked',
    reversingEntries: 'reversing_marked',
    // The first leg may be older, or in another step. Then its legs are added up at the lowest one of the step.
    place: 'row_number() OVER (PARTITION BY transfer_id ORDER BY is_first DESC, account_id, version)',
    isSummed: 'place = 1 AND first_legs IS DISTINCT FROM 0',
  },
  further: 'head_problems',
};

// $4 to $7: the kept heads of the accounts of a step. The tables are read in the expressions before
// those that have their names.
const VERIFY_SINCE = `
  WITH kept AS MATERIALIZED (
    SELECT account_id COLLATE "C" AS account_id, version, epoch, hash
    FROM unnest($4::text[], $5::bigint[], $6::bigint[], $7::text[]) AS kept (account_id, version, epoch, hash)
  ),
  head AS MATERIALIZED (
    SELECT kept.account_id, chain_end.last_version AS head_version, chain_end.hash AS head_hash
    FROM kept CROSS JOIN LATERAL (${CHAIN_END}) chain_end
    WHERE chain_end.last_version >= 0
  ),
  known AS MATERIALIZED (
    SELECT head.account_id, head.head_version AS known_version, entry.*, limits.*
    FROM head
    LEFT JOIN LATERAL (
      SELECT epoch AS known_epoch, balance AS known_balance, held AS known_held, asset AS known_asset, created_at AS known_at
      FROM ledger WHERE ledger.account_id = head.account_id AND ledger.version = head.head_version LIMIT 1
    ) entry ON true
    LEFT JOIN LATERAL (
      SELECT ARRAY[version, ${limitsOf('')}] AS known_limits
      FROM ledger WHERE ledger.account_id = head.account_id AND ledger.version <= head.head_version AND status IS NOT NULL
      ORDER BY ledger.version DESC LIMIT 1
    ) limits ON true
  ),
  account AS NOT MATERIALIZED (SELECT * FROM account WHERE ${IN_STEP}),
  beginning AS MATERIALIZED (
    SELECT account_id, head_version, head_hash FROM head
    UNION ALL
    SELECT account_id, ${GENESIS.version}, ${GENESIS.hash} FROM account
    WHERE NOT EXISTS (SELECT FROM head WHERE head.account_id = account.account_id)
  ),
  whole_ledger AS NOT MATERIALIZED (SELECT * FROM ledger),
  whole_outbox AS NOT MATERIALIZED (SELECT * FROM outbox),
  whole_chain AS NOT MATERIALIZED (SELECT * FROM ledger_chain),
  ledger AS MATERIALIZED (${AFTER_HEAD('ledger', 'version')}),
  outbox AS MATERIALIZED (
    SELECT outbox.* FROM outbox LEFT JOIN head USING (account_id)
    WHERE ${IN_STEP} AND outbox.version > coalesce(head.head_version, -1)
  ),
  ledger_chain AS MATERIALIZED (${AFTER_HEAD('ledger_chain', 'last_version', 'found.*, head_version, head_hash')}),
  active_hold AS NOT MATERIALIZED (SELECT * FROM hold WHERE ${IN_STEP} AND status = 'active'),
  head_problems AS (
    SELECT account_id, ARRAY[
             CASE WHEN hash_due IS DISTINCT FROM head_hash
                  THEN 'the entries do not match the kept head: ' || ${nameOfVersions('coalesce(first_version, head_version)', 'head_version')} END
           ] AS problems
    FROM (
      SELECT *, ${hashDue('hash_before', 'first_version', 'head_version')} AS hash_due
      FROM (
        SELECT head.*, segment.first_version, CASE WHEN segment.first_version = 0 THEN ${GENESIS.hash} ELSE before.hash END AS hash_before
        FROM head
        JOIN (SELECT account_id FROM ledger UNION SELECT account_id FROM outbox) changed USING (account_id)
        LEFT JOIN LATERAL (
          SELECT first_version FROM whole_chain chain
          WHERE chain.account_id = head.account_id AND chain.last_version = head.head_version LIMIT 1
        ) segment ON true
        LEFT JOIN LATERAL (
          SELECT hash FROM whole_chain chain
          WHERE chain.account_id = head.account_id AND chain.last_version = segment.first_version - 1 LIMIT 1
        ) before ON true
        OFFSET 0
      ) link
      OFFSET 0
    ) computed
  ),
  ${historyProblems(SINCE_HEADS)}
  SELECT *, (SELECT count(*) FROM head) AS heads FROM (${COUNT_JUDGED}) counted`;

/**
 * The last account of the step that begins after $1, or with the first account if $1 is null; at
 * most $2, where that is not null. No row: all up to there are one step. $3, $4: kept heads.
 */
const STEP_SINCE = `
  SELECT account_id AS "accountId" FROM (
    SELECT account_id, sum(greatest(account.version - coalesce(kept.version, -1), 1)) OVER in_order AS changes,
           row_number() OVER in_order AS number
    FROM (
      SELECT account_id, version FROM account
      WHERE ($1::text IS NULL OR account_id > $1) AND ($2::text IS NULL OR account_id <= $2)
      ORDER BY account_id LIMIT ${STEP_ACCOUNTS_MAX}
    ) account
    LEFT JOIN unnest($3::text[], $4::bigint[]) AS kept (account_id, version) USING (account_id)
    WINDOW in_order AS (ORDER BY account_id ROWS UNBOUNDED PRECEDING)
  ) AS step
  WHERE changes >= ${STEP_CHANGES} OR number = ${STEP_ACCOUNTS_MAX}
  ORDER BY account_id LIMIT 1`;

/**
 * Reads only. Heads that the chains contradict are no beginning: their accounts are verified from
 * the opening, and the caller reports them (findBrokenHeadsHere).
 * @param client inside {@link inSnapshot}, with {@link PLAN_SINCE}.
 * @param heads one for each account at most, by account id in byte order, in pages.
 * @param onStep called after each step with what has been found so far.
 */
export async function verifySince(
  client: Pick<pg.ClientBase, 'query'>,
  heads: AsyncIterable<readonly ChainHead[]>,
  onStep?: (soFar: Verification) => void,
): Promise<VerificationSince> {
  const findings = new Findings();
  let begun = 0;
  let behind: string | null = null;

  /** Verifies the accounts up to the last one of a page of heads, or to the end. */
  async function verifyUpTo(page: readonly ChainHead[], end: string | null): Promise<void> {
    for (let rest = page; ; ) {
      const columns = columnsOf(rest);
      const step = await client.query<{ accountId: string }>(STEP_SINCE, [behind, end, columns[0], columns[1]]);
      const last: string | null = step.rows[0]?.accountId ?? end;
      const isIn = ({ accountId }: ChainHead) => last === null || accountId <= last;
      const { rows } = await client.query(VERIFY_SINCE, [
        ...[findings.room, behind, last],
        ...columnsOf(rest.filter(isIn)),
      ]);
      findings.add(rows[0] as Judged);
      begun += Number(rows[0].heads);
      onStep?.(findings.soFar);
      rest = rest.filter((head) => !isIn(head));
      behind = last;
      if (last === end) return;
    }
  }

  for await (const page of heads) {
    const last = page.at(-1);
    if (last)
      await verifyUpTo(
        page.filter(({ version }) => version !== null),
        last.accountId,
      );
  }
  await verifyUpTo([], null);
  return { ...findings.soFar, accountsWithoutHead: findings.soFar.accounts - begun };
}
