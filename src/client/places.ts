// How many calls of one kind run at once. The others wait in the order in which they came.

export interface Places {
  take<T>(call: () => T | Promise<T>): Promise<T>;
}

export function createPlaces(max: number): Places {
  const waiting: (() => void)[] = [];
  let free = max;
  return {
    async take(call) {
      if (free > 0) free -= 1;
      else await new Promise<void>((resolve) => waiting.push(resolve));
      try {
        return await call();
      } finally {
        const next = waiting.shift();
        if (next) next();
        else free += 1;
      }
    },
  };
}
