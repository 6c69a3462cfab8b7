// SQL for verify: finds problems in the hash chain of each account. Every hash is compared with the
// one computed from the previous hash and the entries of its segment, so that only the segment that
// was changed is named, and not all that follow it.
import { GENESIS_HASH } from './chain-head.ts';

/** Segments named in a sentence; all are counted. */
const NAMED_MAX = 5;

/**
 * extend_ledger_chain makes none that is longer. It bounds what one lookup reads, even from a
 * manipulated ledger_chain.
 */
export const SEGMENT_ENTRIES_MAX = 1000;

/** `version 6`, `versions 3 to 5` */
export const nameOfVersions = (first: string, last: string) =>
  `CASE WHEN ${first} = ${last} THEN 'version ' || ${last} ELSE 'versions ' || ${first} || ' to ' || ${last} END`;

/** A sentence that names the segments of links that meet a condition, or null when none does. */
function problem(what: string, condition: string, first = 'first_version', last = 'last_version'): string {
  const found = `count(*) FILTER (WHERE ${condition})`;
  const names = `(array_agg(${nameOfVersions(first, last)} ORDER BY last_version) FILTER (WHERE ${condition}))[1:${NAMED_MAX}]`;
  return `CASE WHEN ${found} > 0 THEN format('${what}: %s', array_to_string(${names}, ', '))
      || CASE WHEN ${found} > ${NAMED_MAX} THEN format(' and %s more', ${found} - ${NAMED_MAX}) ELSE '' END END`;
}

/**
 * The hash that a segment of link must have after another hash; null where it lacks entries. A look-up by key for each
 * segment: reads its entries alone, in order of version.
 */
export function hashDue(hashBefore: string, first: string, last: string): string {
  return `(
      SELECT CASE WHEN count(*) = ${last} - ${first} + 1
                  THEN ledger_segment_hash(${hashBefore}, link.account_id, string_agg(entry.text, '],[')) END
      FROM (
        SELECT ledger_entry_text(whole_ledger) AS text FROM whole_ledger
        WHERE whole_ledger.account_id = link.account_id AND whole_ledger.version BETWEEN ${first} AND ${last}
        ORDER BY whole_ledger.version LIMIT ${SEGMENT_ENTRIES_MAX}
      ) entry
    )`;
}

/** Before the first segment of a chain. */
export const GENESIS = { version: '-1::bigint', hash: `decode('${GENESIS_HASH}', 'hex')` };

/**
 * Common table expressions, the last of which is chain_problems: account_id, entries (that are in a
 * segment), problems (sentences, or nulls). Segments are those of ledger_chain. They are read in
 * key order, their entries by key from whole_ledger, each once; a segment that does not begin where
 * the one before ended is not computed, so that no segment can make this read the same entries over
 * and over.
 *
 * If someone changed a hash, its own segment and the next one do not match. To distinguish this
 * from changed entries, the correct hash is substituted: then the next segment matches. Only
 * mismatching segments are read again for this.
 * @param before last version and hash before the first segment of an account: columns of
 *   ledger_chain, or constants.
 */
export const chainProblems = (before: { version: string; hash: string }) => `
  placed AS (
    SELECT *,
           lag(last_version, 1, ${before.version}) OVER in_order AS last_before,
           lag(hash, 1, ${before.hash}) OVER in_order AS hash_before,
           lead(first_version) OVER in_order AS next_first,
           lead(last_version) OVER in_order AS next_last,
           lead(hash) OVER in_order AS next_hash
    FROM ledger_chain
    WINDOW in_order AS (PARTITION BY account_id ORDER BY last_version)
  ),
  computed AS (
    SELECT *, CASE WHEN last_before = first_version - 1 AND last_version - first_version < ${SEGMENT_ENTRIES_MAX}
                   THEN ${hashDue('hash_before', 'first_version', 'last_version')} END AS hash_due
    FROM placed link
    OFFSET 0 -- else the planner computes it wherever it is used below, as it would the state
  ),
  links AS (
    SELECT account_id, first_version, last_version, last_before,
           CASE
             WHEN first_version > last_before + 1 THEN 'hash removed'
             WHEN first_version <= last_before THEN 'overlap'
             WHEN last_version - first_version >= ${SEGMENT_ENTRIES_MAX} THEN 'too long'
             WHEN hash_due IS NULL THEN 'entry removed'
             WHEN hash_due = hash THEN 'intact'
             WHEN ${hashDue('hash_due', 'next_first', 'next_last')} = next_hash THEN 'hash changed'
             WHEN ${hashDue('hash_due_before', 'first_version', 'last_version')} = hash THEN 'intact'
             ELSE 'entry changed'
           END AS state
    FROM (
      SELECT *, lag(hash_due) OVER (PARTITION BY account_id ORDER BY last_version) AS hash_due_before FROM computed
    ) link
    OFFSET 0
  ),
  chain_problems AS (
    SELECT account_id,
           sum(CASE WHEN state IN ('intact', 'hash changed', 'entry changed') THEN last_version - first_version + 1 ELSE (
             SELECT count(*) FROM whole_ledger
             WHERE whole_ledger.account_id = links.account_id
               AND whole_ledger.version BETWEEN greatest(first_version, last_before + 1) AND last_version
           ) END) AS entries,
           ARRAY[
             ${problem('the entries do not match the hash', `state = 'entry changed'`)},
             ${problem('entries were removed', `state = 'entry removed'`)},
             ${problem('the hash was changed, but the entries are intact', `state = 'hash changed'`)},
             ${problem('the hash was removed', `state = 'hash removed'`, '(last_before + 1)', '(first_version - 1)')},
             ${problem('the segment overlaps the one before', `state = 'overlap'`)},
             ${problem('the segment is longer than allowed', `state = 'too long'`)}
           ] AS problems
    FROM links
    GROUP BY account_id
  )`;
