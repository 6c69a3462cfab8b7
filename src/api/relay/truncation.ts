// Duty "truncate": switches writers to the other partition of the outbox, and truncates the one
// that they left when it is no longer needed:
//   1. no transaction that drew a position in it is still running;
//   2. both tracks are done with it;
//   3. all of it is recorded, by count: the floor passed exactly as many rows as it holds.
//      Otherwise (a term that began in between, or rows that were inserted below the floor), each
//      row is looked up, and missing ones are published;
//   4. every transaction that was running then is over: pg_dump takes its snapshot before it locks
//      its tables, and TRUNCATE empties them for that snapshot too, so it would see the rows
//      neither here nor in the ledger. Any other transaction is waited for only for a bounded time.
import type { Pool } from '../../shared/database.ts';
import type { Logger } from '../../shared/logging.ts';
import { examine, readUnrecorded, readWriters } from './outbox.ts';
import {
  countRows,
  type Partition,
  type PartitionName,
  readPartitions,
  readTransactions,
  switchPartition,
  type Transaction,
  truncatePartition,
  truncateProgress,
} from './partitions.ts';
import { lowerProgress } from './progress.ts';
import type { Recording } from './recording.ts';
import type { Track } from './track.ts';

const EVERY_MS = 500;
/**
 * Each attempt can hold up updates for the lock's time limit: for less than a hundredth of this.
 */
const PAUSE_MAX_MS = 5000;
/** Below it a partition is not worth the truncation. */
const PARTITION_BYTES_MIN = 2 * 1024 * 1024;
const COUNT_POSITIONS = 100_000;
const EXAMINE_ROWS_MAX = 5000;
const DUMP = /^pg_dump/;
const REPORT_AFTER_MS = 10 * 60_000;
const REPORT_EVERY_MS = 10 * 60_000;

/** What the truncation waits for, once it has found that a partition is done. */
export interface Waiting {
  sinceMs: number;
  transactions: Transaction[];
}

export interface TruncationOptions {
  ledger: Track;
  subscribers: Track;
  recording: Recording;
  log: Logger;
  /** How long to wait for a transaction other than a dump. */
  snapshotPatienceMs: number;
}

export class Truncation {
  pauseMs = EVERY_MS;
  #lockedPauseMs = EVERY_MS;
  readonly #database: Pool;
  readonly #options: TruncationOptions;
  #left: PartitionName | undefined;
  /**
   * The transactions that may still insert into the partition that was left; undefined until they
   * were read.
   */
  #writers: string[] | undefined;
  #proven: (Partition & Waiting) | undefined;
  #reportedAtMs = Number.NEGATIVE_INFINITY;

  constructor(database: Pool, options: TruncationOptions) {
    this.#database = database;
    this.#options = options;
  }

  get waiting(): Waiting | undefined {
    return this.#proven;
  }

  async round(): Promise<void> {
    this.pauseMs = EVERY_MS;
    const { publishedUpTo } = this.#options.ledger;
    const { drawn, open, left } = await readPartitions(this.#database);
    // The sequence was set back by someone: new rows would not be found. The next term starts from
    // correct positions.
    if (drawn < publishedUpTo) throw new Error(`outbox_position went back from ${publishedUpTo} to ${drawn}`);
    if (left.name !== this.#left) this.#forget();
    this.#left = left.name;
    if (left.last === null) {
      this.#forget();
      if (open.bytes >= PARTITION_BYTES_MIN) {
        await switchPartition(this.#database);
        await truncateProgress(this.#database);
      }
    } else if (await this.#isDone(left)) await this.#truncate(left);
  }

  #forget(): void {
    this.#writers = undefined;
    this.#proven = undefined;
  }

  async #isDone(left: Partition): Promise<boolean> {
    const { ledger, subscribers, recording } = this.#options;
    const last = left.last as number;
    if (this.#proven?.last === last && this.#proven.first === left.first) return true;
    this.#proven = undefined;
    this.#writers = await this.#writersLeft();
    if (this.#writers.length > 0) return false;
    if (recording.floor < last || Math.min(ledger.done(), subscribers.done()) < last) return false;
    if (!(await this.#isCounted(left)) && !(await this.#isRecorded(left))) {
      this.pauseMs = PAUSE_MAX_MS; // it looked through all of it
      return false;
    }
    this.#proven = { ...left, sinceMs: performance.now(), transactions: await readTransactions(this.#database) };
    return true;
  }

  async #writersLeft(): Promise<string[]> {
    const now = await readWriters(this.#database);
    return this.#writers?.filter((writer) => now.includes(writer)) ?? now;
  }

  async #isCounted({ name, first, last }: Partition): Promise<boolean> {
    const passed = this.#options.recording.passed[name] ?? 0;
    let rows = 0;
    for (let above = (first as number) - 1; above < (last as number) && rows <= passed; above += COUNT_POSITIONS) {
      rows += await countRows(this.#database, name, above, Math.min(last as number, above + COUNT_POSITIONS));
    }
    return rows === passed;
  }

  /** Looks up all rows; those that are not recorded were not published yet. */
  async #isRecorded({ first, last }: Partition): Promise<boolean> {
    const { ledger, subscribers, log } = this.#options;
    const below = (last as number) + 1;
    for (let above = (first as number) - 1; above < below - 1; ) {
      const found = await examine(this.#database, { above, below, limit: EXAMINE_ROWS_MAX });
      if (found.firstUnrecorded !== null) {
        const range = { above: found.firstUnrecorded - 1, upTo: found.last as number, limit: EXAMINE_ROWS_MAX };
        const missing = await readUnrecorded(this.#database, range);
        log.error(
          { events: missing.length, firstPosition: missing[0] },
          'found unpublished changes below the floor: publishing them',
        );
        if (missing[0] !== undefined) await lowerProgress(this.#database, 'subscribers', missing[0]);
        for (const track of [ledger, subscribers]) track.owe(missing);
        return false;
      }
      above = found.last ?? below;
    }
    return true;
  }

  async #truncate(left: Partition): Promise<void> {
    const proven = this.#proven as Partition & Waiting;
    await this.#awaitTransactions(proven);
    if (proven.transactions.length > 0) return;
    const result = await truncatePartition(this.#database, left);
    if (result === 'truncated') this.#options.recording.passed[left.name] = 0;
    if (result !== 'locked') {
      this.#lockedPauseMs = EVERY_MS;
      return this.#forget();
    }
    this.#lockedPauseMs = Math.min(PAUSE_MAX_MS, 2 * this.#lockedPauseMs);
    this.pauseMs = this.#lockedPauseMs;
    this.#report(proven, await readTransactions(this.#database));
  }

  async #awaitTransactions(proven: Waiting): Promise<void> {
    if (proven.transactions.length === 0) return;
    const running = new Set((await readTransactions(this.#database)).map(({ id }) => id));
    const isPatient = performance.now() - proven.sinceMs < this.#options.snapshotPatienceMs;
    proven.transactions = proven.transactions.filter(
      ({ id, applicationName }) => running.has(id) && (isPatient || DUMP.test(applicationName)),
    );
    this.#report(proven, proven.transactions);
  }

  #report({ sinceMs }: Waiting, transactions: Transaction[]): void {
    const nowMs = performance.now();
    const waitedMs = Math.round(nowMs - sinceMs);
    if (waitedMs < REPORT_AFTER_MS || nowMs - this.#reportedAtMs < REPORT_EVERY_MS) return;
    this.#reportedAtMs = nowMs;
    this.#options.log.warn(
      { waitedMs, transactions: transactions.slice(0, 10) },
      'the outbox cannot be truncated while these transactions run',
    );
  }
}
