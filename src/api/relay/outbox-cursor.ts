// The relay's position in the outbox. Positions are assigned before commit, so a lower one can
// appear after a higher one: a missing position below the cursor is remembered as a gap and read
// again with every page, until every transaction that could still fill it has ended. Nothing is
// skipped, and an unrelated open transaction delays nothing.
//
// Why a gap's end can be known: a transaction that draws a position holds a lock on the outbox from
// before that until it is over and visible. So only transactions that held that lock after the gap
// was seen can fill it; once all of them have ended, either the next page shows the row, or it was
// rolled back.
import type { OutboxRow } from './outbox.ts';
import type { Range } from './ranges.ts';

type OutboxPlace = Pick<OutboxRow, 'position'>;

interface Gap extends Range {
  /** Transactions that may still fill it; undefined until they were first asked for. */
  writers: readonly string[] | undefined;
}

/** Immutable: each step makes a new one, so that two tracks at the same place can share a step. */
export class OutboxCursor {
  /** The last position read. */
  readonly behind: number;
  readonly #gaps: readonly Gap[];

  /** @param behind everything up to this position is done with, but for the gaps. */
  constructor(behind = 0, gaps: readonly Gap[] = []) {
    this.behind = behind;
    this.#gaps = gaps;
  }

  get gaps(): readonly Range[] {
    return this.#gaps;
  }

  /** Forgets gaps up to a position. */
  forget(upTo: number): OutboxCursor {
    const gaps = this.#gaps
      .filter(({ last }) => last > upTo)
      .map((gap) => (gap.first > upTo ? gap : { ...gap, first: upTo + 1 }));
    return new OutboxCursor(Math.max(this.behind, upTo), gaps);
  }

  /**
   * @param writers the transactions that hold a writer's lock on the outbox, asked for after the
   * last page was read.
   */
  noteWriters(writers: readonly string[]): OutboxCursor {
    const present = new Set(writers);
    const gaps = this.#gaps.map((gap) => ({
      ...gap,
      writers: gap.writers?.filter((writer) => present.has(writer)) ?? writers,
    }));
    return new OutboxCursor(this.behind, gaps);
  }

  /** Takes note of a page that was read from here. @param limit the most rows it could have. */
  advance(page: readonly OutboxPlace[], limit: number): OutboxCursor {
    const readUpTo = page.length < limit ? Number.POSITIVE_INFINITY : (page.at(-1)?.position ?? 0);
    const late = page.filter((row) => row.position <= this.behind);
    const gaps = this.#gaps
      .filter((gap) => gap.writers?.length !== 0 || gap.last > readUpTo)
      .flatMap((gap) => (late.length === 0 ? [gap] : without(gap, late)));
    let { behind } = this;
    for (const { position } of page) {
      if (position <= behind) continue;
      if (position > behind + 1) gaps.push({ first: behind + 1, last: position - 1, writers: undefined });
      behind = position;
    }
    return new OutboxCursor(behind, gaps);
  }
}

/** What is left of a gap after some of its positions appeared. */
function without(gap: Gap, late: readonly OutboxPlace[]): Gap[] {
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
