// SQL of the relay that reads the outbox.

import { CHANGE_COLUMNS, type Change, changeRow } from '../../shared/change.ts';
import type { Pool } from '../../shared/database.ts';
import type { Range } from './ranges.ts';

export interface OutboxRow extends Change {
  position: number;
  traceparent: string | null;
  /** The event as JSON, once it was needed: each track publishes it. */
  event: string | undefined;
}

/** In order of position, which within one account is the order of versions. */
export type OutboxPage = readonly OutboxRow[];

// A JSON array of each column, null where there is nothing in it: a row for each change costs the
// relay four times as much.
const READ_COLUMNS = [...CHANGE_COLUMNS, ['traceparent', 'text', 'traceparent']] as const;
const READ = `
  SELECT ${['position', ...READ_COLUMNS.map(([column]) => column)].map(columnOf).join(', ')}
  FROM (
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
  ) page`;

function columnOf(column: string): string {
  return `CASE WHEN count(${column}) > 0 THEN array_to_json(array_agg(${column})) END AS ${column}`;
}

type Columns = Record<string, (number | string | null)[] | null>;

/**
 * The first `limit` rows that lie after a position or in one of the ranges before it, from one
 * snapshot.
 */
export async function readOutbox(
  database: Pool,
  after: number,
  ranges: Iterable<Range>,
  limit: number,
): Promise<OutboxPage> {
  const values = valuesOf(after, ranges, limit);
  const columns = (await database.query<Columns>({ name: 'outbox_read', text: READ, values })).rows[0] as Columns;
  const rows: OutboxRow[] = (columns.position ?? []).map((position) => ({ ...NOTHING, position: position as number }));
  for (const [column, type, name] of READ_COLUMNS) {
    columns[column]?.forEach((value, index) => {
      const row = rows[index] as unknown as Record<string, unknown>;
      row[name] = value !== null && type === 'timestamptz' ? new Date(value) : value;
    });
  }
  return rows;
}

/** All members, so that none is added later: that would cost more than reading them. */
const NOTHING = {
  ...{ position: 0, traceparent: null, event: undefined },
  ...(Object.fromEntries(CHANGE_COLUMNS.map(([, , name]) => [name, null])) as Record<keyof Change, never>),
};

function valuesOf(after: number, ranges: Iterable<Range>, limit: number): unknown[] {
  const firsts: number[] = [];
  const lasts: number[] = [];
  for (const { first, last } of ranges) {
    firsts.push(first);
    lasts.push(last);
  }
  return [after, firsts, lasts, limit];
}

/** Above every position. */
export const AFTER_ALL = Number.MAX_SAFE_INTEGER;

const WRITERS = `
  SELECT virtualtransaction AS writer FROM pg_locks
  WHERE locktype = 'relation' AND relation = 'outbox'::regclass AND mode = 'RowExclusiveLock' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;

/** The transactions that are inserting into the outbox, or have and are not over. */
export async function readWriters(database: Pool): Promise<string[]> {
  const { rows } = await database.query<{ writer: string }>({ name: 'outbox_writers', text: WRITERS });
  return rows.map((row) => row.writer);
}

// LATERAL with LIMIT 1, here and below: a look-up by key whatever the statistics say of a table
// that was empty yesterday.
const EXAMINE = `
  WITH examined AS (
    SELECT outbox.position, ledger.account_id IS NOT NULL AS recorded
    FROM (SELECT * FROM outbox WHERE position > $1 AND position < $2 ORDER BY position LIMIT $3) outbox
    LEFT JOIN LATERAL (
      SELECT * FROM ledger WHERE ledger.account_id = outbox.account_id AND ledger.version = outbox.version LIMIT 1
    ) ledger
      ON ${changeRow('ledger')} IS NOT DISTINCT FROM ${changeRow('outbox')}
  ),
  missing AS (SELECT min(position) AS first FROM examined WHERE NOT recorded)
  SELECT count(*) AS examined, max(position) AS last,
         max(position) FILTER (WHERE recorded) AS "lastRecorded",
         missing.first AS "firstUnrecorded",
         count(*) FILTER (WHERE missing.first IS NULL OR position < missing.first) AS "recordedBefore"
  FROM missing LEFT JOIN examined ON true
  GROUP BY missing.first`;

/** Positions are null where there is none. */
export interface Examination {
  examined: number;
  last: number | null;
  lastRecorded: number | null;
  firstUnrecorded: number | null;
  /** Rows before the first that is not recorded. */
  recordedBefore: number;
}

/** Looks up at most `limit` rows between two positions, both excluded, in the ledger. */
export async function examine(
  database: Pool,
  range: { above: number; below: number; limit: number },
): Promise<Examination> {
  const values = [range.above, range.below, range.limit];
  const found = (await database.query<Examination>({ name: 'outbox_examine', text: EXAMINE, values }))
    .rows[0] as Examination;
  return found.last === null ? { ...found, examined: 0, recordedBefore: 0 } : found;
}

const READ_UNRECORDED = `
  SELECT position
  FROM outbox
  LEFT JOIN LATERAL (
    SELECT true AS found FROM ledger
    WHERE ledger.account_id = outbox.account_id AND ledger.version = outbox.version LIMIT 1
  ) recorded ON true
  WHERE position > $1 AND position <= $2 AND recorded.found IS NULL
  ORDER BY position
  LIMIT $3`;

/**
 * The first positions of a range that the ledger lacks; `above` excluded, `upTo` included. It goes
 * through the whole range.
 */
export async function readUnrecorded(
  database: Pool,
  range: { above: number; upTo: number; limit: number },
): Promise<number[]> {
  const values = [range.above, range.upTo, range.limit];
  const { rows } = await database.query<{ position: number }>({
    name: 'outbox_unrecorded',
    text: READ_UNRECORDED,
    values,
  });
  return rows.map(({ position }) => position);
}
