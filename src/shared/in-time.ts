// Asks somebody who may take long, or never answer: waits a bounded time, and never has two questions under way.

/**
 * @param ask rejects only where that is worth as much as no answer.
 * @returns what asks, or goes on waiting for the answer to the question before. Undefined: none came in time. Never rejects.
 */
export function inTime<T>(ask: () => Promise<T>, waitMs: number): () => Promise<T | undefined> {
  let underWay: Promise<T | undefined> | undefined;
  return async () => {
    underWay ??= ask()
      .catch(() => undefined)
      .finally(() => {
        underWay = undefined;
      });
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(resolve, waitMs, undefined);
    });
    try {
      return await Promise.race([underWay, late]);
    } finally {
      clearTimeout(timer);
    }
  };
}
