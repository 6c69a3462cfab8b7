// Long work: reports its progress on standard error, and ends when a person or a supervisor asks.

const EVERY_MS = 5000;

/** Reports the progress and the elapsed time every five seconds. */
export function startProgress(state: () => string): { end(): void } {
  const startedMs = performance.now();
  const timer = setInterval(() => {
    console.error(`${((performance.now() - startedMs) / 1000).toFixed(0)} s: ${state()}`);
  }, EVERY_MS).unref();
  return { end: () => clearInterval(timer) };
}

/** Aborted by the first SIGINT or SIGTERM: the work comes to an orderly end. A second one ends the process at once. */
export function interruption(): AbortSignal {
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => interrupted.abort(new Error(`interrupted by ${signal}`)));
  }
  return interrupted.signal;
}
