// Up to which version the ledger of an account is complete. Workers record at the same time, and a lost event is published
// again seconds later, so an entry can be in the ledger while one before it is not. Readers stop before the first such hole.
//
// The search for it never goes through the history. Up to the end of its hash chain an account has no hole, and a change that
// the ledger lacks is in the outbox, so there is none below the account's first row there either. Only what is above both is
// looked at: under load the entries of about a second, 0.2 µs each.

/** Entries above both that one statement looks at, 10 ms. Where more have no hash yet, the rest is shown when they have. */
const UNPROVEN_MAX = 50_000;

/**
 * A scalar SQL expression, about the row `account` of the query around it: the last version up to which the ledger lacks none,
 * null where it lacks the first. It never falls, as the ledger is append-only: entries up to it can be read in later snapshots.
 */
// TRUNCATE is not MVCC-safe, but a statement locks its tables before it takes its snapshot. So this
// is no SQL function, whose statements lock theirs under the snapshot of the caller. Counting costs
// half of numbering, which is only done if there is a hole.
export const LEDGER_VERSION = `(
  WITH proven AS MATERIALIZED (
    SELECT greatest(
      (SELECT last_version FROM ledger_chain chain WHERE chain.account_id = account.account_id ORDER BY last_version DESC LIMIT 1),
      coalesce((SELECT version - 1 FROM outbox WHERE outbox.account_id = account.account_id ORDER BY version LIMIT 1), account.version)
    ) AS version
  ),
  unproven AS MATERIALIZED (
    SELECT count(*) AS entries, max(version) AS newest
    FROM (
      SELECT version FROM ledger
      WHERE ledger.account_id = account.account_id AND version > (SELECT version FROM proven)
      ORDER BY version LIMIT ${UNPROVEN_MAX}
    ) entry
  )
  SELECT nullif(CASE
    WHEN entries = 0 THEN least(
      proven.version,
      coalesce((SELECT version FROM ledger WHERE ledger.account_id = account.account_id ORDER BY version DESC LIMIT 1), -1)
    )
    WHEN newest = proven.version + entries THEN newest
    ELSE (
      SELECT proven.version + place - 1
      FROM (
        SELECT version, row_number() OVER (ORDER BY version) AS place FROM ledger
        WHERE ledger.account_id = account.account_id AND version > proven.version
        ORDER BY version LIMIT ${UNPROVEN_MAX}
      ) entry
      WHERE entry.version > proven.version + place
      LIMIT 1
    )
  END, -1)
  FROM proven, unproven
)`;
