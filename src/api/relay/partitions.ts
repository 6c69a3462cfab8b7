// SQL of the relay on the two partitions of the outbox: which one is written to, what they hold,
// and which transactions may still need it.
import type { Pool } from '../../shared/database.ts';
import { isLockNotAvailable } from '../../shared/sqlstate.ts';

/** As in migrations/001.do.tables.sql. */
export const BLOCK_POSITIONS = 2 ** 26;

const NAMES = ['outbox_even', 'outbox_odd'] as const;
export type PartitionName = (typeof NAMES)[number];

/** Where a row of this position is. */
export function partitionOf(position: number): PartitionName {
  return NAMES[Math.floor(position / BLOCK_POSITIONS) % 2] as PartitionName;
}

export interface Partition {
  name: PartitionName;
  /** Of the table itself. */
  bytes: number;
  /** Lowest and highest position; null where it is empty. */
  first: number | null;
  last: number | null;
}

/** About what rows with a position above `above` and up to `upTo` take of it, if all are alike. */
export function bytesBetween({ bytes, first, last }: Omit<Partition, 'name'>, above: number, upTo: number): number {
  if (first === null || last === null) return 0;
  const count = Math.min(last, upTo) - Math.max(first - 1, above);
  return count <= 0 ? 0 : (bytes * count) / (last - first + 1);
}

const STATE = `
  SELECT outbox_position.last_value AS drawn,
         pg_relation_size('outbox_even') AS "evenBytes", pg_relation_size('outbox_odd') AS "oddBytes",
         (SELECT min(position) FROM outbox_even) AS "evenFirst", (SELECT max(position) FROM outbox_even) AS "evenLast",
         (SELECT min(position) FROM outbox_odd) AS "oddFirst", (SELECT max(position) FROM outbox_odd) AS "oddLast"
  FROM outbox_position`;

/**
 * The partition that is written to, and the one that is not; `drawn` is the last position that was
 * given.
 */
export async function readPartitions(database: Pool): Promise<{ drawn: number; open: Partition; left: Partition }> {
  const row = (await database.query({ name: 'outbox_partitions', text: STATE })).rows[0];
  const even: Partition = { name: 'outbox_even', bytes: row.evenBytes, first: row.evenFirst, last: row.evenLast };
  const odd: Partition = { name: 'outbox_odd', bytes: row.oddBytes, first: row.oddFirst, last: row.oddLast };
  const isEven = partitionOf(row.drawn) === 'outbox_even';
  return { drawn: row.drawn, open: isEven ? even : odd, left: isEven ? odd : even };
}

export async function switchPartition(database: Pool): Promise<void> {
  await database.query('SELECT switch_outbox_partition()');
}

/** Rows with a position above `above` and up to `upTo`. */
export async function countRows(database: Pool, name: PartitionName, above: number, upTo: number): Promise<number> {
  const text = `SELECT count(*) AS count FROM ${name} WHERE position > $1 AND position <= $2`;
  return (await database.query({ name: `count_${name}`, text, values: [above, upTo] })).rows[0].count;
}

const TRANSACTIONS = `
  SELECT lock.virtualtransaction AS id, lock.pid, coalesce(activity.application_name, '') AS "applicationName"
  FROM pg_locks lock
  LEFT JOIN pg_stat_activity activity ON activity.pid = lock.pid
  WHERE lock.locktype = 'virtualxid' AND lock.pid <> pg_backend_pid()
    AND (activity.datid IS NULL OR activity.datname = current_database())`;

/** A transaction running in this database, whose snapshot may be as old as itself. */
export interface Transaction {
  id: string;
  pid: number;
  applicationName: string;
}

export async function readTransactions(database: Pool): Promise<Transaction[]> {
  return (await database.query<Transaction>({ name: 'transactions', text: TRANSACTIONS })).rows;
}

/**
 * @returns 'locked' while another session reads it (such as a backup), 'changed' if its content is
 * no longer as expected.
 */
export async function truncatePartition(
  database: Pool,
  { name, first, last }: Partition,
): Promise<'truncated' | 'locked' | 'changed'> {
  try {
    const { rows } = await database.query('SELECT truncate_outbox_partition($1, $2, $3) AS done', [name, first, last]);
    return rows[0].done ? 'truncated' : 'changed';
  } catch (error) {
    if (isLockNotAvailable(error)) return 'locked';
    throw error;
  }
}

/** The notes are tiny, but each start reads their highest. */
const PROGRESS_BYTES_MAX = 1024 * 1024;

export async function truncateProgress(database: Pool): Promise<void> {
  const { rows } = await database.query(`SELECT pg_relation_size('relay_progress') > $1 AS due`, [PROGRESS_BYTES_MAX]);
  if (!rows[0].due) return;
  await database.query('SELECT truncate_relay_progress()').catch((error) => {
    if (!isLockNotAvailable(error)) throw error;
  });
}
