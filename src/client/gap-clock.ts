// When to report a gap to the subscriber: after it has lasted for a time, or at once if nothing
// more can arrive.

export class GapClock {
  readonly #timeoutMs: number;
  readonly #onDue: () => void;
  #timer: NodeJS.Timeout | undefined;
  #due: 'late' | 'full' | undefined;
  /**
   * The current gap was answered `wait` although nothing more could arrive: then only time counts.
   *
   */
  #isKnownFull = false;

  constructor(timeoutMs: number, onDue: () => void) {
    this.#timeoutMs = timeoutMs;
    this.#onDue = onDue;
  }

  /** Whether it is due. If not, it begins to count. @param isFull whether still nothing more can arrive. */
  isDue(isFull: boolean): boolean {
    if (this.#due === 'full' && !isFull) this.#due = undefined; // there is room again
    if (this.#due) return true;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#due = 'late';
      this.#onDue();
    }, this.#timeoutMs);
    return false;
  }

  /** Nothing more can arrive: a gap that is counted is due. */
  full(): void {
    if (!this.#timer || this.#isKnownFull) return;
    this.#due ??= 'full';
    this.#onDue();
  }

  /** It is closed, or counted from the beginning. */
  reset(isKnownFull = false): void {
    this.stop();
    this.#timer = undefined;
    this.#due = undefined;
    this.#isKnownFull = isKnownFull;
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
