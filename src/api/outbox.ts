// SQL of the relay on the outbox.
import type pg from 'pg';
import type { BalanceChange } from '../shared/events.ts';

export interface OutboxRow extends BalanceChange {
  position: number;
  traceparent: string | null;
}

/** A range of positions, both ends included. */
export interface Range {
  first: number;
  last: number;
}

export interface OutboxPage {
  /** In order of position, which within one account is the order of versions. */
  rows: OutboxRow[];
  /** Every transaction with a lower id has ended, and this page shows what it wrote. */
  oldestRunning: number;
}

const READ = `
  SELECT pg_snapshot_xmin(snapshot)::text::bigint AS "oldestRunning",
         page.position, page.account_id AS "accountId", page.version, page.amount, page.balance, page.reference,
         page.traceparent, page.created_at AS "createdAt"
  FROM pg_current_snapshot() AS snapshot
  LEFT JOIN (
    SELECT * FROM (
      SELECT late.* FROM unnest($2::bigint[], $3::bigint[]) AS gap (first, last)
      CROSS JOIN LATERAL (
        SELECT * FROM outbox WHERE position BETWEEN gap.first AND gap.last ORDER BY position LIMIT $4
      ) late
      UNION ALL
      SELECT * FROM (SELECT * FROM outbox WHERE position > $1 ORDER BY position LIMIT $4) next
    ) found
    ORDER BY position
    LIMIT $4
  ) page ON true
  ORDER BY page.position`;

/** The first `limit` rows that lie behind a position or in one of the gaps before it, from one snapshot. */
export async function readOutbox(
  client: pg.Client,
  behind: number,
  gaps: readonly Range[],
  limit: number,
): Promise<OutboxPage> {
  const values = [behind, gaps.map((gap) => gap.first), gaps.map((gap) => gap.last), limit];
  const { rows } = await client.query({ name: 'outbox_read', text: READ, values });
  return { rows: rows[0].position === null ? [] : rows, oldestRunning: rows[0].oldestRunning };
}

/** A transaction id above every one that was given before the call. Uses one up; writes nothing. */
export async function drawTransactionId(client: pg.Client): Promise<number> {
  const { rows } = await client.query('SELECT pg_current_xact_id()::text::bigint AS id');
  return rows[0].id;
}

const REMOVE = `
  WITH examined AS (
    SELECT position, account_id, version FROM outbox
    WHERE position > $1 AND position < $2
    ORDER BY position
    LIMIT $3
  ),
  removed AS (
    DELETE FROM outbox
    USING examined, ledger
    WHERE outbox.account_id = examined.account_id AND outbox.version = examined.version
      AND examined.position <> ALL ($4::bigint[])
      AND NOT EXISTS (
        SELECT FROM unnest($5::bigint[], $6::bigint[]) AS gap (first, last)
        WHERE examined.position BETWEEN gap.first AND gap.last
      )
      AND ledger.account_id = examined.account_id AND ledger.version = examined.version
      AND ledger.amount = outbox.amount AND ledger.balance = outbox.balance
      AND ledger.reference IS NOT DISTINCT FROM outbox.reference AND ledger.created_at = outbox.created_at
    RETURNING outbox.position
  )
  SELECT count(*) AS examined, count(removed.position) AS removed,
         max(examined.position) AS last, max(removed.position) AS "lastRemoved",
         min(examined.position) FILTER (WHERE removed.position IS NULL) AS "firstKept"
  FROM examined
  LEFT JOIN removed ON removed.position = examined.position`;

export interface Removal {
  examined: number;
  removed: number;
  /** Positions; null where there is none. */
  last: number | null;
  lastRemoved: number | null;
  firstKept: number | null;
}

/**
 * Looks at up to `limit` rows between two positions, both excluded, and deletes those that the ledger holds: all but
 * the ones to keep and the ones in gaps, whose event is not confirmed.
 */
export async function removeRecorded(
  client: pg.Client,
  range: { above: number; below: number; limit: number },
  keep: readonly number[],
  gaps: readonly Range[],
): Promise<Removal> {
  const values = [
    range.above,
    range.below,
    range.limit,
    keep,
    gaps.map((gap) => gap.first),
    gaps.map((gap) => gap.last),
  ];
  return (await client.query<Removal>({ name: 'outbox_remove', text: REMOVE, values })).rows[0] as Removal;
}

const READ_UNRECORDED = `
  SELECT position, account_id AS "accountId", version, amount, balance, reference, traceparent, created_at AS "createdAt"
  FROM outbox
  WHERE position > $1 AND position <= $2
    AND NOT EXISTS (
      SELECT FROM ledger WHERE ledger.account_id = outbox.account_id AND ledger.version = outbox.version
    )
  ORDER BY position
  LIMIT $3`;

/** The first rows of a range that the ledger lacks; `above` excluded, `upTo` included. */
export async function readUnrecorded(
  client: pg.Client,
  range: { above: number; upTo: number; limit: number },
): Promise<OutboxRow[]> {
  const values = [range.above, range.upTo, range.limit];
  return (await client.query<OutboxRow>({ name: 'outbox_unrecorded', text: READ_UNRECORDED, values })).rows;
}

/** Which of these positions are no longer in the outbox. */
export async function findRemoved(client: pg.Client, positions: readonly number[]): Promise<number[]> {
  const { rows } = await client.query<{ position: number }>(
    'SELECT position FROM unnest($1::bigint[]) AS position WHERE NOT EXISTS (SELECT FROM outbox WHERE outbox.position = position.position)',
    [positions],
  );
  return rows.map((row) => row.position);
}
