// Limits how much of the event loop pages of entries may take while updates arrive. A page of 1,000
// is as much work as forty updates, so heavy readers would otherwise use most of the process.

/** Fewer updates a second do not mind. */
const UPDATES_PER_S_MIN = 20;
const LOOK_EVERY_MS = 1000;
/** What was not used for so long may be used later. */
const BURST_MS = 50;
/** Of the work that rows cause, reading them is a quarter: they are encoded and sent, and leave garbage. */
const WORK_OF_READING = 4;

export class Pace {
  readonly #share: number;
  readonly #updates: () => number;
  readonly #now: () => number;
  /** When what was used is a share of the time that has passed. */
  #paidAtMs = Number.NEGATIVE_INFINITY;
  #look: { atMs: number; updates: number };
  #isBusy = false;

  /**
   * @param share above 0; 1: all of it.
   * @param updates so far.
   */
  constructor(share: number, updates: () => number, now: () => number = () => performance.now()) {
    this.#share = share;
    this.#updates = updates;
    this.#now = now;
    this.#look = { atMs: now(), updates: updates() };
  }

  /** The process was busy for so long with rows that it read. */
  spend(ms: number): void {
    this.#paidAtMs = Math.max(this.#paidAtMs, this.#now() - BURST_MS) + (WORK_OF_READING * ms) / this.#share;
  }

  /** Until the next page may be read. */
  waitMs(): number {
    if (this.#share === 1) return 0;
    const nowMs = this.#now();
    const { atMs, updates } = this.#look;
    if (nowMs - atMs >= LOOK_EVERY_MS) {
      this.#look = { atMs: nowMs, updates: this.#updates() };
      this.#isBusy = this.#look.updates - updates >= (UPDATES_PER_S_MIN * (nowMs - atMs)) / 1000;
    }
    if (!this.#isBusy) this.#paidAtMs = Number.NEGATIVE_INFINITY; // time that no one else needed is not a debt
    return Math.max(0, Math.ceil(this.#paidAtMs - nowMs));
  }
}
