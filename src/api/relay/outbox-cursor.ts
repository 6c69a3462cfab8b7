// Where the relay stands in the outbox. Positions are given before commit, so a lower one can appear after a higher
// one: what is missing below the cursor is remembered as a gap and looked for again with every page, until everyone who
// could still fill it is known to have ended. Nothing is skipped, and a transaction that somebody leaves open elsewhere
// delays nothing.
//
// Why a gap's end can be known: whoever draws a position holds a lock on the outbox from before that until its
// transaction is over and visible. So a gap can be filled only by those who held that lock after the gap was seen;
// when none of them does any more, the next page shows the row, or it was rolled back.
import type { OutboxPage, Range } from './outbox.ts';

interface Gap extends Range {
  /** Transactions that may still fill it; undefined until they were first asked for. */
  writers: readonly string[] | undefined;
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

  /** @param writers the transactions that hold a writer's lock on the outbox, asked for after the last page was read. */
  noteWriters(writers: readonly string[]): void {
    const present = new Set(writers);
    for (const gap of this.#gaps) gap.writers = gap.writers?.filter((writer) => present.has(writer)) ?? writers;
  }

  /** Takes note of a page that was read from here. @param limit the most rows it could have. */
  advance(page: OutboxPage, limit: number): void {
    const readUpTo = page.length < limit ? Number.POSITIVE_INFINITY : (page.at(-1)?.position ?? 0);
    const late = page.filter((row) => row.position <= this.#behind);
    const gaps = this.#gaps
      .filter((gap) => gap.writers?.length !== 0 || gap.last > readUpTo)
      .flatMap((gap) => (late.length === 0 ? [gap] : without(gap, late)));
    for (const { position } of page) {
      if (position <= this.#behind) continue;
      if (position > this.#behind + 1) {
        gaps.push({ first: this.#behind + 1, last: position - 1, writers: undefined });
      }
      this.#behind = position;
    }
    this.#gaps = gaps;
  }
}

/** What is left of a gap after some of its positions appeared. */
function without(gap: Gap, late: OutboxPage): Gap[] {
  const rest: Gap[] = [];
  let first = gap.first;
  for (const { position } of late) {
    if (position < gap.first || position > gap.last) continue;
    if (position > first) rest.push({ ...gap, first, last: position - 1 });
    first = position + 1;
  }
  if (first <= gap.last) rest.push({ ...gap, first, last: gap.last });
  return rest;
}
