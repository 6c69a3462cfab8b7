// What the wall clock said at a moment of the clients' monotonic clock. A machine that sets its clock
// steps it, in the middle of a run too: then the times of the database step, and nothing is wrong.

/** Two readings are never of the very same moment. */
const STEP_MS_MIN = 100;

export class WallClock {
  /** From a moment on: what to add to it. */
  readonly #offsets: { sinceMs: number; offsetMs: number }[] = [];

  /** Call it often: a step counts from the reading that shows it. */
  read(monotonicMs: number, wallMs: number): void {
    const offsetMs = wallMs - monotonicMs;
    const last = this.#offsets.at(-1);
    if (last && Math.abs(offsetMs - last.offsetMs) < STEP_MS_MIN) return;
    this.#offsets.push({ sinceMs: monotonicMs, offsetMs });
  }

  /**
   * The wall times, in milliseconds since 1970, of what happened between two moments. The latest
   * allows for a clock that was set back before: no account's time goes back, so its changes keep
   * the last one until the clock has passed it.
   */
  between(startMs: number, endMs: number): { earliestMs: number; latestMs: number } {
    const known = this.#offsets.filter(({ sinceMs }) => sinceMs <= endMs);
    const atStart = known.findLastIndex(({ sinceMs }) => sinceMs <= startMs);
    const within = known.slice(Math.max(atStart, 0));
    return {
      earliestMs: startMs + Math.min(...within.map(({ offsetMs }) => offsetMs)),
      latestMs: endMs + Math.max(...known.map(({ offsetMs }) => offsetMs)),
    };
  }
}
