// Sets of positions as ranges; adjacent ranges are merged.

/** A range of positions, both ends included. */
export interface Range {
  first: number;
  last: number;
}

export class Ranges implements Iterable<Range> {
  /** In order, with something missing between any two. */
  #ranges: Range[] = [];

  /** Ranges, not positions. */
  get size(): number {
    return this.#ranges.length;
  }

  /** The lowest position; Infinity where there is none. */
  get first(): number {
    return this.#ranges[0]?.first ?? Number.POSITIVE_INFINITY;
  }

  [Symbol.iterator](): Iterator<Range> {
    return this.#ranges[Symbol.iterator]();
  }

  has(position: number): boolean {
    const range = this.#ranges[this.#indexAt(position)];
    return range !== undefined && range.first <= position;
  }

  add(first: number, last = first): void {
    const from = this.#indexAt(first - 1);
    let to = from;
    let merged = { first, last };
    for (let next = this.#ranges[to]; next && next.first <= last + 1; next = this.#ranges[to]) {
      merged = { first: Math.min(merged.first, next.first), last: Math.max(merged.last, next.last) };
      to += 1;
    }
    this.#ranges.splice(from, to - from, merged);
  }

  remove(first: number, last = first): void {
    const from = this.#indexAt(first);
    const rest: Range[] = [];
    let to = from;
    for (let next = this.#ranges[to]; next && next.first <= last; next = this.#ranges[to]) {
      if (next.first < first) rest.push({ first: next.first, last: first - 1 });
      if (next.last > last) rest.push({ first: last + 1, last: next.last });
      to += 1;
    }
    this.#ranges.splice(from, to - from, ...rest);
  }

  /** Halves their number: each two become one, with what lies between them. */
  coarsen(): void {
    this.#ranges = this.#ranges.flatMap((range, index) =>
      index % 2 === 1 ? [] : [{ first: range.first, last: (this.#ranges[index + 1] ?? range).last }],
    );
  }

  /** Of the first range that ends at a position or after it. */
  #indexAt(position: number): number {
    let [low, high] = [0, this.#ranges.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#ranges[middle] as Range).last < position) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
