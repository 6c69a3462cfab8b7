// Where the relay stands in the outbox. Positions are given before commit, so a lower one can appear after a higher
// one: what is missing below the cursor is remembered as a gap and looked for again with every page, until the
// transaction that could still fill it is known to have ended. Nothing is skipped, and an open transaction elsewhere
// delays the forgetting of gaps, never the reading.
//
// Why a gap's end can be known: a transaction locks its accounts before it draws positions, so it has its transaction
// id by then, and an id drawn after the gap was seen is above it. The xmax of the page's snapshot would not do: it is
// one above the newest transaction that has ended, and the one that fills the gap may be newer still and running.
import type { OutboxPage, Range } from './outbox.ts';

/** Above it the oldest gaps are merged: rows between them are then read, and published, once more. */
const GAPS_MAX = 1000;

interface Gap extends Range {
  /** When all transactions below this id have ended, nothing more can appear here. Infinity until bounded. */
  closedBy: number;
}

export class OutboxCursor {
  #behind: number;
  #gaps: Gap[] = [];

  /** @param behind everything up to this position is done with. */
  constructor(behind = 0) {
    this.#behind = behind;
  }

  /** The last position read. */
  get behind(): number {
    return this.#behind;
  }

  get gaps(): readonly Range[] {
    return this.#gaps;
  }

  /** Whether there are gaps that {@link bound} has not been told about. */
  get unbounded(): boolean {
    return this.#gaps.some((gap) => gap.closedBy === Number.POSITIVE_INFINITY);
  }

  /** @param transactionId drawn after the last page was read. */
  bound(transactionId: number): void {
    for (const gap of this.#gaps) gap.closedBy = Math.min(gap.closedBy, transactionId);
  }

  /** Takes note of a page that was read from here. @param limit the most rows it could have. */
  advance(page: OutboxPage, limit: number): void {
    const complete = page.rows.length < limit;
    const readUpTo = complete ? Number.POSITIVE_INFINITY : (page.rows.at(-1)?.position ?? 0);
    const seen = new Set(page.rows.map((row) => row.position));
    const gaps = this.#gaps
      .filter((gap) => gap.closedBy > page.oldestRunning || gap.last > readUpTo)
      .flatMap((gap) => without(gap, page.rows, seen));
    for (const { position } of page.rows) {
      if (position <= this.#behind) continue;
      if (position > this.#behind + 1) {
        gaps.push({ first: this.#behind + 1, last: position - 1, closedBy: Number.POSITIVE_INFINITY });
      }
      this.#behind = position;
    }
    while (gaps.length > GAPS_MAX) {
      const [oldest, second] = gaps.splice(0, 2) as [Gap, Gap];
      gaps.unshift({ first: oldest.first, last: second.last, closedBy: Math.max(oldest.closedBy, second.closedBy) });
    }
    this.#gaps = gaps;
  }
}

/** What is left of a gap after some of its positions appeared. */
function without(gap: Gap, rows: OutboxPage['rows'], seen: ReadonlySet<number>): Gap[] {
  const inside = rows.filter((row) => row.position >= gap.first && row.position <= gap.last);
  if (inside.length === 0) return [gap];
  const rest: Gap[] = [];
  let first = gap.first;
  for (const { position } of inside) {
    if (position > first && !seen.has(first)) rest.push({ ...gap, first, last: position - 1 });
    first = position + 1;
  }
  if (first <= gap.last) rest.push({ ...gap, first, last: gap.last });
  return rest;
}
