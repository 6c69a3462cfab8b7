// Tells the operator who was refused and how often, in one line a second at most: a flood of refusals is no flood of lines.
import type { Logger } from '../../shared/logging.ts';

const INTERVAL_MS = 1000;

/** @returns a function that notes one refusal; actor is undefined for a caller without a key. */
export function createRefusalLog(log: Logger): (code: string, actor: string | undefined) => void {
  // As many as there are codes and clients with keys.
  let counts = new Map<string, { code: string; actor: string | undefined; count: number }>();

  function write(): void {
    log.warn({ refusals: [...counts.values()] }, 'calls were refused');
    counts = new Map();
  }

  return (code, actor) => {
    if (counts.size === 0) setTimeout(write, INTERVAL_MS).unref();
    const id = `${code} ${actor}`;
    const known = counts.get(id);
    if (known) known.count += 1;
    else counts.set(id, { code, actor, count: 1 });
  };
}
