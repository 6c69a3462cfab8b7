// SQL for verify: what is wrong with the hash chain of each account. Every hash is compared with what the hash before it
// and the entry give, so that the one entry that was changed is named, and not all that follow it.
import { GENESIS_HASH } from './chain-head.ts';

/** Versions named in a sentence; all are counted. */
const VERSIONS_NAMED_MAX = 5;

/** A sentence that names the rows of links that meet a condition, or null when none does. */
function problem(what: string, condition: string, named = 'version'): string {
  const found = `count(*) FILTER (WHERE ${condition})`;
  const names = `(array_agg(${named} ORDER BY version) FILTER (WHERE ${condition}))[1:${VERSIONS_NAMED_MAX}]`;
  return `CASE WHEN ${found} > 0 THEN format('${what}: version %s', array_to_string(${names}, ', '))
      || CASE WHEN ${found} > ${VERSIONS_NAMED_MAX} THEN format(' and %s more', ${found} - ${VERSIONS_NAMED_MAX}) ELSE '' END END`;
}

/**
 * Common table expressions, the last of which is chain_problems: account_id, entries (that have a hash), problems
 * (sentences, or nulls). Both tables are read once, in key order.
 *
 * Where somebody changed a hash, its entry does not fit and neither does the next one. That is told from two changed entries
 * by putting the right hash in its place: then the next entry fits. What is looked up for that is looked up for misfits only.
 */
export const CHAIN_PROBLEMS = `
  chain AS (
    SELECT *,
           lag(version, 1, 0::bigint) OVER in_order AS version_before,
           lag(hash, 1, '\\x${GENESIS_HASH}') OVER in_order AS hash_before,
           lag(hash, 2, '\\x${GENESIS_HASH}') OVER in_order AS hash_two_before
    FROM ledger_chain
    WINDOW in_order AS (PARTITION BY account_id ORDER BY version)
  ),
  links AS (
    SELECT chain.account_id, chain.version, chain.version_before,
           CASE
             WHEN ledger.version IS NULL THEN 'entry removed'
             WHEN chain.version_before <> chain.version - 1 OR sha256(hash_before || ledger_entry_bytes(ledger)) = hash THEN 'intact'
             WHEN (
               SELECT sha256(sha256(hash_before || ledger_entry_bytes(ledger)) || ledger_entry_bytes(next)) = next_hash.hash
               FROM ledger next
               JOIN ledger_chain next_hash USING (account_id, version)
               WHERE next.account_id = chain.account_id AND next.version = chain.version + 1
             ) THEN 'hash changed'
             WHEN (
               SELECT sha256(sha256(hash_two_before || ledger_entry_bytes(before)) || ledger_entry_bytes(ledger)) = hash
               FROM ledger before
               WHERE before.account_id = chain.account_id AND before.version = chain.version - 1
             ) THEN 'intact'
             ELSE 'entry changed'
           END AS state
    FROM chain
    LEFT JOIN ledger ON ledger.account_id = chain.account_id AND ledger.version = chain.version
    OFFSET 0 -- else the planner puts the whole CASE wherever state stands below
  ),
  chain_problems AS (
    SELECT account_id, count(*) FILTER (WHERE state <> 'entry removed') AS entries, ARRAY[
      ${problem('the entry is not what was hashed', `state = 'entry changed'`)},
      ${problem('the entry was removed', `state = 'entry removed'`)},
      ${problem('the hash was changed, the entry is intact', `state = 'hash changed'`)},
      ${problem(
        'the hash was removed',
        'version_before <> version - 1',
        `concat_ws(' to ', nullif(version_before + 1, version - 1), version - 1)`,
      )}
    ] AS problems
    FROM links
    GROUP BY account_id
  )`;
