// Decides which requests are taken when more arrive than the event loop can serve. Without it every answer comes later
// and later: a request waits in its socket for all others that are ready too, and does so again for each step.
//
// How long that is shows in the turns of the event loop. While they are long, requests are taken for a part of each turn
// only, and the others are refused at once, which costs a fifth. The part is halved after a long turn and grows slowly
// after a short one, so that turns stay near the limit under any load and on any machine. A single long turn, such as a
// garbage collection or a pause of the machine, refuses nothing.

/** A request that comes in while another is served waits for about a turn. */
const TURN_MS_MAX = 40;
/** In every stretch of TURN_MS_MAX some requests are taken, even when refusing alone is too much work. */
const TAKING_MS_MIN = 1;
/** No turn is that long: everything is taken. */
const TAKING_MS_MAX = 2000;
const SHRINK = 0.5;
const GROW = 1.05;

export interface Clock {
  /** Milliseconds. */
  now(): number;
  /** Calls back when this turn of the event loop has served all that is ready. */
  atEndOfTurn(callback: () => void): void;
}

const eventLoop: Clock = { now: () => performance.now(), atEndOfTurn: (callback) => setImmediate(callback) };

/** @returns what says whether to take the next request; the first in each turn always is. */
export function createAdmission(clock: Clock = eventLoop): () => boolean {
  let takingMs = TAKING_MS_MAX;
  let turnStartedAtMs: number | undefined;

  function endTurn(): void {
    const tookMs = clock.now() - (turnStartedAtMs as number);
    turnStartedAtMs = undefined;
    takingMs =
      tookMs > TURN_MS_MAX
        ? Math.max(TAKING_MS_MIN, Math.min(takingMs, tookMs) * SHRINK)
        : Math.min(TAKING_MS_MAX, takingMs * GROW);
  }

  return () => {
    const nowMs = clock.now();
    if (turnStartedAtMs === undefined) {
      turnStartedAtMs = nowMs;
      clock.atEndOfTurn(endTurn);
    }
    const sinceMs = nowMs - turnStartedAtMs;
    return sinceMs <= takingMs || sinceMs % TURN_MS_MAX <= TAKING_MS_MIN;
  };
}
