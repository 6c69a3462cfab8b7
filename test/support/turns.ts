// How much CPU a single turn of this process's event loop takes. While it looks a turn begins as
// soon as one has ended, so that none holds more than what a single callback did.

/** Milliseconds of CPU of this thread. The kernel counts in steps of up to 4 ms. */
function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

/** @returns what ends the look, and says how long the longest turn was. */
export function watchTurns(): () => number {
  let longestMs = 0;
  let isOver = false;
  let beganAtMs = cpuMs();
  const turn = () => {
    const nowMs = cpuMs();
    longestMs = Math.max(longestMs, nowMs - beganAtMs);
    beganAtMs = nowMs;
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  return () => {
    isOver = true;
    return Math.max(longestMs, cpuMs() - beganAtMs);
  };
}
