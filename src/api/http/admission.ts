// Decides which requests are taken when more arrive than the event loop can serve. Without it every answer comes later
// and later: a request waits in its socket for all others that are ready too, and does so again for each step.
//
// How long that is shows in the turns of the event loop. While they are long, requests are taken for a part of each turn
// only, and the others are refused at once, which costs a fifth. The part is halved after a long turn and grows slowly
// after a short one, so that turns stay near the limit under any load and on any machine.
//
// A turn is long by the CPU time that it took, not by the clock: of a process that waits for the CPU itself, refusing
// makes nothing faster. One long turn alone, such as a garbage collection, refuses nothing.

/** A request that comes in while others are served waits for about a turn. */
const TURN_MS_MAX = 25;
/** In every stretch of TURN_MS_MAX some requests are taken, even when refusing alone is too much work. */
const TAKING_MS_MIN = 1;
/** No turn is that long: everything is taken. */
const TAKING_MS_MAX = 2000;
const SHRINK = 0.5;
const GROW = 1.05;

export interface Clock {
  /** Milliseconds. */
  now(): number;
  /** CPU time of this thread so far, in milliseconds. */
  cpuMs(): number;
  /** Calls back when this turn of the event loop has served all that is ready. */
  atEndOfTurn(callback: () => void): void;
}

const eventLoop: Clock = {
  now: () => performance.now(),
  cpuMs() {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1000;
  },
  atEndOfTurn: (callback) => setImmediate(callback),
};

/** @returns what says whether to take the next request; the first in each turn always is. */
export function createAdmission(clock: Clock = eventLoop): () => boolean {
  let takingMs = TAKING_MS_MAX;
  let turn: { startedAtMs: number; startedAtCpuMs: number | undefined } | undefined;
  let wasLong = false;

  function endTurn(): void {
    if (!turn) return;
    const { startedAtMs, startedAtCpuMs } = turn;
    turn = undefined;
    wasLong = clock.now() - startedAtMs > TURN_MS_MAX;
    const cpuMs = startedAtCpuMs === undefined ? 0 : clock.cpuMs() - startedAtCpuMs;
    takingMs =
      cpuMs > TURN_MS_MAX
        ? Math.max(TAKING_MS_MIN, Math.min(takingMs, cpuMs) * SHRINK)
        : Math.min(TAKING_MS_MAX, takingMs * GROW);
  }

  return () => {
    const nowMs = clock.now();
    if (!turn) {
      // Asking for the CPU time takes a microsecond: only where there is something to decide.
      const isWatching = wasLong || takingMs < TAKING_MS_MAX;
      turn = { startedAtMs: nowMs, startedAtCpuMs: isWatching ? clock.cpuMs() : undefined };
      clock.atEndOfTurn(endTurn);
    }
    const sinceMs = nowMs - turn.startedAtMs;
    return sinceMs <= takingMs || sinceMs % TURN_MS_MAX <= TAKING_MS_MIN;
  };
}
