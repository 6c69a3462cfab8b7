// Duty "record": moves the floor, up to which everything is confirmed and recorded in the ledger,
// and counts the rows it passes, so that the truncation can tell from a count whether a partition
// holds anything else.
import type { Pool } from '../../shared/database.ts';
import { examine } from './outbox.ts';
import { BLOCK_POSITIONS, partitionOf } from './partitions.ts';
import type { Track } from './track.ts';

const EXAMINE_ROWS_MAX = 5000;
/**
 * As often as it is noted; more often, each query would cover only a few rows, and repeat those
 * that the ledger does not hold yet.
 */
const PAUSE_MS = 250;
/** While there is more than was looked at. */
const FULL_PAUSE_MS = 20;
const PAUSE_MAX_MS = 500;

export class Recording {
  /** Everything up to here is confirmed, and recorded. */
  floor: number;
  /** The highest position that the ledger was seen to hold. */
  recordedUpTo: number;
  /** Rows that the floor passed since the term began, by partition. */
  readonly passed: Record<string, number> = {};
  readonly #database: Pool;
  readonly #ledger: Track;
  #above: number;
  #pauseMs = PAUSE_MS;

  constructor(database: Pool, ledger: Track, floor: number) {
    this.#database = database;
    this.#ledger = ledger;
    this.floor = floor;
    this.recordedUpTo = floor;
    this.#above = floor;
  }

  get pauseMs(): number {
    return this.#pauseMs;
  }

  async round(): Promise<void> {
    const floorBefore = this.floor;
    // Not beyond a block, so that what is passed is of one partition.
    const below = Math.min(this.#ledger.done() + 1, endOfBlock(this.#above + 1) + 1);
    // The ledger may be catching up there while we look further on.
    if (this.#above > this.floor && (await this.#isRecordedAfter(this.floor, below))) this.#above = this.floor;
    if (below <= this.#above + 1) {
      this.#above = this.floor;
      this.#pauseMs = Math.min(PAUSE_MAX_MS, this.#pauseMs * 2);
      return;
    }
    const found = await examine(this.#database, { above: this.#above, below, limit: EXAMINE_ROWS_MAX });
    const isAll = found.examined < EXAMINE_ROWS_MAX;
    this.recordedUpTo = Math.max(this.recordedUpTo, found.lastRecorded ?? 0);
    if (this.#above === this.floor) {
      if (found.firstUnrecorded !== null) this.floor = found.firstUnrecorded - 1;
      else this.floor = isAll ? below - 1 : (found.last ?? this.floor);
      const partition = partitionOf(floorBefore + 1);
      this.passed[partition] = (this.passed[partition] ?? 0) + found.recordedBefore;
    }
    // After a long stretch that the ledger lacks there may be rows that it has: continue, then
    // start from the floor again.
    this.#above = !isAll && this.floor === floorBefore ? (found.last ?? this.floor) : this.floor;
    if (this.floor > floorBefore) this.#pauseMs = isAll ? PAUSE_MS : FULL_PAUSE_MS;
    else this.#pauseMs = Math.min(PAUSE_MAX_MS, this.#pauseMs * 2);
  }

  async #isRecordedAfter(position: number, below: number): Promise<boolean> {
    return (await examine(this.#database, { above: position, below, limit: 1 })).lastRecorded !== null;
  }
}

function endOfBlock(position: number): number {
  return Math.floor(position / BLOCK_POSITIONS) * BLOCK_POSITIONS + BLOCK_POSITIONS - 1;
}
