// SQL of the relay on the outbox.
import type pg from 'pg';
import { type Change, changeRow, SELECT_CHANGE } from '../../shared/change.ts';

export interface OutboxRow extends Change {
  position: number;
  traceparent: string | null;
}

/** A range of positions, both ends included. */
export interface Range {
  first: number;
  last: number;
}

/** In order of position, which within one account is the order of versions. */
export type OutboxPage = readonly OutboxRow[];

const READ = `
  SELECT position, traceparent, ${SELECT_CHANGE}
  FROM (
    SELECT late.* FROM unnest($2::bigint[], $3::bigint[]) AS gap (first, last)
    CROSS JOIN LATERAL (
      SELECT * FROM outbox WHERE position BETWEEN gap.first AND gap.last ORDER BY position LIMIT $4
    ) late
    UNION ALL
    SELECT * FROM (SELECT * FROM outbox WHERE position > $1 ORDER BY position LIMIT $4) next
  ) found
  ORDER BY position
  LIMIT $4`;

/** The first `limit` rows that lie behind a position or in one of the gaps before it, from one snapshot. */
export async function readOutbox(
  client: pg.Client,
  behind: number,
  gaps: readonly Range[],
  limit: number,
): Promise<OutboxPage> {
  const values = [behind, gaps.map((gap) => gap.first), gaps.map((gap) => gap.last), limit];
  return (await client.query<OutboxRow>({ name: 'outbox_read', text: READ, values })).rows;
}

const WRITERS = `
  SELECT virtualtransaction AS writer FROM pg_locks
  WHERE locktype = 'relation' AND relation = 'outbox'::regclass AND mode = 'RowExclusiveLock' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;

/** The transactions that are inserting into the outbox, or have and are not over. */
export async function readWriters(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ writer: string }>({ name: 'outbox_writers', text: WRITERS });
  return rows.map((row) => row.writer);
}

// LATERAL with LIMIT 1, here and below: a look-up by key whatever the statistics say of a table that was empty yesterday.
const EXAMINE = `
  WITH examined AS (
    SELECT outbox.position, ledger.account_id IS NOT NULL AS recorded
    FROM (SELECT * FROM outbox WHERE position > $1 AND position < $2 ORDER BY position LIMIT $3) outbox
    LEFT JOIN LATERAL (
      SELECT * FROM ledger WHERE ledger.account_id = outbox.account_id AND ledger.version = outbox.version LIMIT 1
    ) ledger
      ON ${changeRow('ledger')} IS NOT DISTINCT FROM ${changeRow('outbox')}
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
  SELECT position, traceparent, ${SELECT_CHANGE}
  FROM outbox
  LEFT JOIN LATERAL (
    SELECT true AS found FROM ledger
    WHERE ledger.account_id = outbox.account_id AND ledger.version = outbox.version LIMIT 1
  ) recorded ON true
  WHERE position > $1 AND position <= $2 AND recorded.found IS NULL
  ORDER BY position
  LIMIT $3`;

/** The first rows of a range that the ledger lacks; `above` excluded, `upTo` included. It goes through the whole range. */
export async function readUnrecorded(
  client: pg.Client,
  range: { above: number; upTo: number; limit: number },
): Promise<OutboxRow[]> {
  const values = [range.above, range.upTo, range.limit];
  return (await client.query<OutboxRow>({ name: 'outbox_unrecorded', text: READ_UNRECORDED, values })).rows;
}

const START_ROWS_MAX = 5000;

const PROGRESS = `
  SELECT coalesce((SELECT max(position) FROM relay_progress WHERE track = 'ledger'), 0) AS noted, last_value AS drawn FROM outbox_position`;

/**
 * The position behind which a new relay starts: what the last one noted, if that can be true. It cannot where a database
 * was moved in a way that leaves its sequences behind (logical replication does), or where something below is missing
 * from the ledger; then everything is gone through from the beginning.
 */
export async function startPosition(client: pg.Client, signal: AbortSignal): Promise<number> {
  const { noted, drawn } = (await client.query(PROGRESS)).rows[0];
  if (noted > drawn) {
    await client.query(`DELETE FROM relay_progress WHERE track = 'ledger' AND position > $1`, [drawn]);
    return 0;
  }
  // In steps: behind a long backup the outbox holds more than one statement can look up in its time.
  for (let above = 0; above < noted && !signal.aborted; ) {
    const found = await examine(client, { above, below: noted + 1, limit: START_ROWS_MAX });
    if (found.firstUnrecorded !== null) return 0;
    above = found.last ?? noted;
  }
  return noted;
}

export async function noteProgress(client: pg.Client, position: number): Promise<void> {
  await client.query({
    name: 'outbox_progress',
    text: `INSERT INTO relay_progress (track, position) VALUES ('ledger', $1) ON CONFLICT DO NOTHING`,
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
/** This process may be frozen, or its machine gone, while it holds the lock that updates wait for. */
const TRUNCATE_IDLE_TIMEOUT_MS = 1000;

/**
 * Truncates the partitions in which nothing lies above a position, which is to be confirmed and recorded up to there.
 * @returns false when somebody else's lock was in the way (a backup's, for as long as it runs): try again later.
 */
export async function truncateRecorded(client: pg.Client, upTo: number): Promise<boolean> {
  let done = true;
  for (const partition of PARTITIONS) {
    done &&= await truncate(client, partition, PARTITION_BYTES_MIN, upTo);
  }
  return done && (await truncate(client, 'relay_progress', PROGRESS_BYTES_MIN, upTo));
}

async function truncate(client: pg.Client, table: string, bytesMin: number, upTo: number): Promise<boolean> {
  const needed = `EXISTS (SELECT FROM ${table} WHERE position > ${upTo})`;
  const looked = await client.query(`SELECT pg_relation_size($1) < $2 OR ${needed} AS stays`, [table, bytesMin]);
  if (looked.rows[0].stays) return true;
  await client.query('BEGIN');
  try {
    await client.query(
      `SET LOCAL lock_timeout = ${TRUNCATE_LOCK_TIMEOUT_MS};
       SET LOCAL idle_in_transaction_session_timeout = ${TRUNCATE_IDLE_TIMEOUT_MS}`,
    );
    await client.query(`LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`);
    // Once more under the lock: a late writer may have chosen this table in the meantime.
    if (!(await client.query(`SELECT ${needed} AS stays`)).rows[0].stays) {
      await client.query(`TRUNCATE ${table}`);
      if (table === 'relay_progress') await noteProgress(client, upTo);
    }
    await client.query('COMMIT');
    return true;
  } catch (error) {
    await client.query('ROLLBACK');
    if ((error as { code?: string }).code === LOCK_NOT_AVAILABLE) return false;
    throw error;
  }
}

const LOCK_NOT_AVAILABLE = '55P03';
