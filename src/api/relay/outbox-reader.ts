// Reads the outbox for both tracks, each from its own place. A page that one track read is
// remembered until the other reaches the same place, so that while they are close, each page is
// read and encoded once.
//
// The same place is the same cursor, or two without a gap: the transactions that may fill a gap
// were read before the page was. A row that was committed since is either a gap in the remembered
// page or after it, and is found from there as usual.
import type { Pool } from '../../shared/database.ts';
import { AFTER_ALL, type OutboxPage, readOutbox, readWriters } from './outbox.ts';
import type { OutboxCursor } from './outbox-cursor.ts';

/** With more gaps nothing further is read until some are closed: each costs an index probe a page. */
const GAPS_MAX = 10_000;
/** How far one track may be ahead, in pages of at most a thousand events: events can have 8 KB. */
const STEPS_MAX = 4;

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
  step: Promise<Step>;
}

export class OutboxReader {
  readonly #database: Pool;
  #remembered: Remembered[] = [];

  constructor(database: Pool) {
    this.#database = database;
  }

  /** The next page, of `limit` rows at most. An empty one was read after the call. Throws when the database fails. */
  async next(from: OutboxCursor, limit: number): Promise<Step> {
    const others = this.#remembered.findLast((one) => isSamePlace(one.from, from));
    if (others) {
      this.#forget(others); // there is no third track
      const step = await others.step;
      if (step.page.length > 0 && step.page.length <= limit) return step;
    }
    const one = { from, step: this.#read(from, limit) };
    this.#remembered = [...this.#remembered.slice(1 - STEPS_MAX), one];
    try {
      const step = await one.step;
      if (step.page.length === 0) this.#forget(one);
      return step;
    } catch (error) {
      this.#forget(one);
      throw error;
    }
  }

  #forget(one: Remembered): void {
    this.#remembered = this.#remembered.filter((other) => other !== one);
  }

  async #read(from: OutboxCursor, limit: number): Promise<Step> {
    const readAtMs = performance.now();
    // In this order: if a transaction is over before the page is read, the page shows everything it
    // committed.
    const asked = from.gaps.length > 0 ? from.noteWriters(await readWriters(this.#database)) : from;
    const after = from.gaps.length > GAPS_MAX ? AFTER_ALL : from.behind;
    const page = await readOutbox(this.#database, after, asked.gaps, limit);
    return { page, cursor: asked.advance(page, limit), isFull: page.length === limit, readAtMs };
  }
}

function isSamePlace(one: OutboxCursor, other: OutboxCursor): boolean {
  return one === other || (one.behind === other.behind && one.gaps.length === 0 && other.gaps.length === 0);
}
