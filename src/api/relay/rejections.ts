// Events that some queue refused: each is tried again with growing pauses and holds up no other. A subscriber's full
// queue refuses for all, so the tries are bounded once the ledger has the event; without the ledger they never end.
import type { OutboxRow } from './outbox.ts';

const PAUSE_MIN_MS = 100;
const PAUSE_MAX_MS = 10_000;
const ATTEMPTS_MAX = 6;
/** With more than these, events that the ledger has are let go at once, and no new ones are read. */
const ROWS_MAX = 10_000;

interface Rejection {
  row: OutboxRow;
  attempts: number;
  dueAtMs: number;
}

export class Rejections {
  #byPosition = new Map<number, Rejection>();

  get size(): number {
    return this.#byPosition.size;
  }

  get full(): boolean {
    return this.#byPosition.size >= ROWS_MAX;
  }

  has(position: number): boolean {
    return this.#byPosition.has(position);
  }

  add(row: OutboxRow, nowMs: number): void {
    const attempts = (this.#byPosition.get(row.position)?.attempts ?? 0) + 1;
    const dueAtMs = nowMs + Math.min(PAUSE_MAX_MS, PAUSE_MIN_MS * 2 ** (attempts - 1));
    this.#byPosition.set(row.position, { row, attempts, dueAtMs });
  }

  /** Confirmed at last. */
  delete(row: OutboxRow): void {
    this.#byPosition.delete(row.position);
  }

  /** Rows whose pause is over, at most `limit`. Each is postponed, so that it is not handed out twice. */
  takeDue(nowMs: number, limit: number): OutboxRow[] {
    const due: OutboxRow[] = [];
    for (const rejection of this.#byPosition.values()) {
      if (due.length >= limit) break;
      if (rejection.dueAtMs > nowMs) continue;
      rejection.dueAtMs = nowMs + PAUSE_MAX_MS;
      due.push(rejection.row);
    }
    return due;
  }

  /** The lowest position whose event is still owed to some queue, even when the ledger has it. */
  firstOwed(): number {
    let first = Number.POSITIVE_INFINITY;
    if (this.full) return first;
    for (const { row, attempts } of this.#byPosition.values()) {
      if (attempts < ATTEMPTS_MAX) first = Math.min(first, row.position);
    }
    return first;
  }

  /** Forgets what the ledger has up to a position. Returns how many events some queue never took. */
  abandon(upTo: number): number {
    let abandoned = 0;
    for (const position of this.#byPosition.keys()) {
      if (position > upTo) continue;
      this.#byPosition.delete(position);
      abandoned += 1;
    }
    return abandoned;
  }
}
