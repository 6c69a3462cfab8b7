// Work for accounts of which only so much may be under way at a time; the rest waits in the order in which it came.

export interface Turns<Account> {
  /** Waiting. */
  readonly size: number;
  /** Waits for its turn, in the place of what waits for the account already. */
  add(account: Account, begin: () => Promise<void>): void;
  remove(account: Account): void;
  clear(): void;
  /** Begins what there is room for. It takes its place by take(), before it waits for anything. */
  start(onBegun: (work: Promise<void>) => void): void;
  /** A place is taken for as long as the call takes. */
  take<T>(call: () => T | Promise<T>): Promise<T>;
}

export function createTurns<Account>(placesMax: number): Turns<Account> {
  const waiting = new Map<Account, () => Promise<void>>();
  let taken = 0;
  return {
    get size() {
      return waiting.size;
    },
    add(account, begin) {
      if (!waiting.has(account)) waiting.set(account, begin);
    },
    remove(account) {
      waiting.delete(account);
    },
    clear() {
      waiting.clear();
    },
    start(onBegun) {
      for (const [account, begin] of waiting) {
        if (taken >= placesMax) return;
        waiting.delete(account);
        onBegun(begin());
      }
    },
    async take(call) {
      taken += 1;
      try {
        return await call();
      } finally {
        taken -= 1;
      }
    },
  };
}
