// When which part of the outbox was published, roughly and in bounded memory: a mark every so
// often, for long enough.

const MARK_EVERY_MS = 100;

export class PublishTimes {
  readonly #keepMs: number;
  #marks: { position: number; atMs: number }[] = [];

  /** @param keepMs marks older than this are folded into one. */
  constructor(keepMs: number) {
    this.#keepMs = keepMs;
  }

  note(position: number, nowMs: number): void {
    const last = this.#marks.at(-1);
    if (last && nowMs - last.atMs < MARK_EVERY_MS) last.position = Math.max(last.position, position);
    else this.#marks.push({ position: Math.max(last?.position ?? 0, position), atMs: nowMs });
    // One mark older than the limit stays: what lies below it is older still.
    while (this.#marks.length > 1 && (this.#marks[1]?.atMs ?? nowMs) < nowMs - this.#keepMs) this.#marks.shift();
  }

  /** Everything up to this position was published at least `ageMs` ago; 0 when nothing was. */
  publishedBefore(ageMs: number, nowMs: number): number {
    return this.#marks.findLast((mark) => mark.atMs + MARK_EVERY_MS <= nowMs - ageMs)?.position ?? 0;
  }
}
