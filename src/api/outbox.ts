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

const EXAMINE = `
  WITH examined AS (
    SELECT outbox.position, ledger.account_id IS NOT NULL AS recorded
    FROM (SELECT * FROM outbox WHERE position > $1 AND position < $2 ORDER BY position LIMIT $3) outbox
    LEFT JOIN ledger
      ON ledger.account_id = outbox.account_id AND ledger.version = outbox.version
      AND ledger.amount = outbox.amount AND ledger.balance = outbox.balance
      AND ledger.reference IS NOT DISTINCT FROM outbox.reference AND ledger.created_at = outbox.created_at
  )
  SELECT count(*) AS examined, max(position) AS last,
         max(position) FILTER (WHERE recorded) AS "lastRecorded",
         min(position) FILTER (WHERE NOT recorded) AS "firstUnrecorded"
  FROM examined`;

/** Positions are null where there is none. */
export interface Examination {
  examined: number;
  last: number | null;
  lastRecorded: number | null;
  firstUnrecorded: number | null;
}

/** Looks up to `limit` rows between two positions, both excluded, up in the ledger. */
export async function examine(
  client: pg.Client,
  range: { above: number; below: number; limit: number },
): Promise<Examination> {
  const values = [range.above, range.below, range.limit];
  return (await client.query<Examination>({ name: 'outbox_examine', text: EXAMINE, values })).rows[0] as Examination;
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

/** The position up to which everything is confirmed and recorded, as far as a relay has noted it; 0 at first. */
export async function readProgress(client: pg.Client): Promise<number> {
  const { rows } = await client.query('SELECT coalesce(max(position), 0) AS position FROM relay_progress');
  return rows[0].position;
}

export async function noteProgress(client: pg.Client, position: number): Promise<void> {
  await client.query({
    name: 'outbox_progress',
    text: 'INSERT INTO relay_progress VALUES ($1) ON CONFLICT DO NOTHING',
    values: [position],
  });
}

const PARTITIONS = ['outbox_even', 'outbox_odd'] as const;
/** Below it a partition is not worth the truncation. */
const PARTITION_BYTES_MIN = 2 * 1024 * 1024;
/** The rows of relay_progress are tiny, but each restart reads their highest. */
const PROGRESS_BYTES_MIN = 1024 * 1024;
/** A waiting TRUNCATE holds up whoever comes behind it, so it gives up soon and tries again later. */
const TRUNCATE_LOCK_TIMEOUT_MS = 40;

/**
 * Truncates the partitions in which nothing lies above a position, which is to be confirmed and recorded up to there.
 * Nothing happens where somebody holds a lock for longer than a moment (a backup does): later, then.
 */
export async function truncateRecorded(client: pg.Client, upTo: number): Promise<void> {
  for (const partition of PARTITIONS) {
    if (await isWorthIt(client, partition, PARTITION_BYTES_MIN)) {
      await truncate(client, partition, `SELECT FROM ${partition} WHERE position > ${upTo}`);
    }
  }
  if (await isWorthIt(client, 'relay_progress', PROGRESS_BYTES_MIN)) {
    await truncate(client, 'relay_progress', `SELECT FROM relay_progress WHERE position > ${upTo}`, upTo);
  }
}

async function isWorthIt(client: pg.Client, table: string, bytesMin: number): Promise<boolean> {
  return (await client.query('SELECT pg_relation_size($1) >= $2 AS large', [table, bytesMin])).rows[0].large;
}

/** @param unless a query: with the table locked, rows of it mean that the table is still needed. */
async function truncate(client: pg.Client, table: string, unless: string, progress?: number): Promise<void> {
  await client.query('BEGIN');
  try {
    await client.query(`SET LOCAL lock_timeout = ${TRUNCATE_LOCK_TIMEOUT_MS}`);
    await client.query(`LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`);
    // Looked at again under the lock: a late writer may have chosen this partition in the meantime.
    const { rows } = await client.query(`SELECT EXISTS (${unless}) AS needed`);
    if (!rows[0].needed) {
      await client.query(`TRUNCATE ${table}`);
      if (progress !== undefined) await noteProgress(client, progress);
    }
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    if ((error as { code?: string }).code !== LOCK_NOT_AVAILABLE) throw error;
  }
}

const LOCK_NOT_AVAILABLE = '55P03';
