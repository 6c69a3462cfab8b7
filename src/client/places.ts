// How many calls of one kind run at once. The others wait in the order in which they came.

export interface Places {
  take<T>(call: () => T | Promise<T>): Promise<T>;
  /**
   * The same, but a caller that waits may give up, and gets undefined. @param onWait gets the
   * function that gives up.
   */
  take<T>(call: () => T | Promise<T>, onWait: (leave: () => void) => void): Promise<T | undefined>;
}

export function createPlaces(max: number): Places {
  const waiting = new Set<() => void>();
  let free = max;
  return {
    async take<T>(call: () => T | Promise<T>, onWait?: (leave: () => void) => void): Promise<T> {
      if (free > 0) free -= 1;
      else {
        const isIn = await new Promise<boolean>((resolve) => {
          const enter = () => resolve(true);
          waiting.add(enter);
          onWait?.(() => {
            if (waiting.delete(enter)) resolve(false);
          });
        });
        if (!isIn) return undefined as T;
      }
      try {
        return await call();
      } finally {
        const [next] = waiting;
        if (next) {
          waiting.delete(next);
          next();
        } else free += 1;
      }
    },
  };
}
