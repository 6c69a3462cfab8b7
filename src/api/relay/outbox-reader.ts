// Reads the outbox for both tracks, each from its own place. A page that one track read is
// remembered until the other reaches the same place, so that while they are close, each page is
// read and encoded once.
//
// Two cursors are at the same place if they are the same object, or have the same position and no
// gaps: with gaps, each depends on the transactions that were read before its page. A row committed
// after a remembered page was read is a gap in that page or comes after it, so it is found later as
// usual.
import type { Pool } from '../../shared/database.ts';
import { AFTER_ALL, type OutboxPage, readOutbox, readWriters } from './outbox.ts';
import type { OutboxCursor } from './outbox-cursor.ts';

/**
 * With more gaps nothing further is read until some are closed: each costs an index probe a page.
 */
const GAPS_MAX = 10_000;
/** How far one track may be ahead, in rows of remembered pages: an event can have 8 KB. */
const REMEMBERED_ROWS_MAX = 4000;
/**
 * Rows of a page. The relay shares the event loop with requests and reads one page per turn. Under
 * overload a turn takes 100 ms, and more than a thousand rows arrive in that time.
 */
const ROWS_MIN = 1000;
const ROWS_MAX = 3000;
/** A page has ROWS_MIN rows up to this length of a turn, and more in proportion to a longer one. */
const TURN_MS = 25;

export interface Step {
  page: OutboxPage;
  /** After the page. */
  cursor: OutboxCursor;
  /** Whether there may be more. */
  isFull: boolean;
  /** By performance.now(). */
  readAtMs: number;
}

interface Remembered {
  from: OutboxCursor;
  /** 0 until it is read. */
  rows: number;
  step: Promise<Step>;
}

export class OutboxReader {
  readonly #database: Pool;
  #remembered: Remembered[] = [];
  #rowsMax = ROWS_MIN;

  constructor(database: Pool) {
    this.#database = database;
  }

  /** Rows of the next page: more, the longer a turn of the event loop takes. */
  get rowsMax(): number {
    return this.#rowsMax;
  }

  /**
   * Returns the next page. An empty page is never a remembered one: it was read after this call.
   * Throws if the database fails.
   * @param limit of rows, unless the page is a remembered one.
   */
  async next(from: OutboxCursor, limit = this.#rowsMax): Promise<Step> {
    const others = this.#remembered.findLast((one) => isSamePlace(one.from, from));
    if (others) {
      this.#forget(others); // there is no third track
      const step = await others.step;
      if (step.page.length > 0) return step;
    }
    const one = { from, rows: 0, step: this.#read(from, limit) };
    // A page of the slower track is of no use: the other has already passed that place.
    if (this.#remembered.every((other) => other.from.behind <= from.behind)) this.#remembered.push(one);
    try {
      const step = await one.step;
      one.rows = step.page.length;
      if (one.rows === 0) this.#forget(one);
      else this.#trim();
      return step;
    } catch (error) {
      this.#forget(one);
      throw error;
    }
  }

  #trim(): void {
    let rows = this.#remembered.reduce((sum, one) => sum + one.rows, 0);
    while (rows > REMEMBERED_ROWS_MAX && this.#remembered.length > 1) {
      rows -= (this.#remembered.shift() as Remembered).rows;
    }
  }

  #forget(one: Remembered): void {
    this.#remembered = this.#remembered.filter((other) => other !== one);
  }

  async #read(from: OutboxCursor, limit: number): Promise<Step> {
    const readAtMs = performance.now();
    this.#measureTurn();
    // In this order: if a transaction is over before the page is read, the page shows everything it
    // committed.
    const asked = from.gaps.length > 0 ? from.noteWriters(await readWriters(this.#database)) : from;
    const after = from.gaps.length > GAPS_MAX ? AFTER_ALL : from.behind;
    const page = await readOutbox(this.#database, after, asked.gaps, limit);
    return { page, cursor: asked.advance(page, limit), isFull: page.length === limit, readAtMs };
  }

  /**
   * Measures a turn, and not the read: that takes longer the larger its rows are, and a larger page
   * would make turns longer.
   */
  #measureTurn(): void {
    setImmediate(() => {
      const beganAtMs = performance.now();
      setImmediate(() => {
        const rows = (ROWS_MIN * (performance.now() - beganAtMs)) / TURN_MS;
        this.#rowsMax = Math.round(Math.min(ROWS_MAX, Math.max(ROWS_MIN, rows)));
      });
    });
  }
}

function isSamePlace(one: OutboxCursor, other: OutboxCursor): boolean {
  return one === other || (one.behind === other.behind && one.gaps.length === 0 && other.gaps.length === 0);
}
