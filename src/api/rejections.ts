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

  /** Positions that stay in the outbox even when the ledger has them. */
  kept(): number[] {
    if (this.full) return [];
    const kept = [...this.#byPosition.values()].filter((rejection) => rejection.attempts < ATTEMPTS_MAX);
    return kept.map((rejection) => rejection.row.position);
  }

  /** Positions that are free to go as soon as the ledger has them. */
  letGo(): number[] {
    const kept = new Set(this.kept());
    return [...this.#byPosition.keys()].filter((position) => !kept.has(position));
  }

  /** Forgets rows that left the outbox although some queue never took their event. */
  abandon(positions: readonly number[]): void {
    for (const position of positions) this.#byPosition.delete(position);
  }
}
