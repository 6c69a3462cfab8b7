// Chance that a seed repeats. Each part of a run draws from a stream of its own, so that none disturbs another's draws.

export interface Random {
  /** 0 to 1, 1 excluded. */
  (): number;
  /** Whole, both ends included. */
  between(first: number, last: number): number;
  chance(probability: number): boolean;
  pick<T>(list: readonly T[]): T;
  shuffled<T>(list: readonly T[]): T[];
  /** Another stream, the same for the same name. */
  fork(name: string): Random;
}

/** @param seed any whole number from 0 to 2^31. */
export function randomFrom(seed: number): Random {
  let state = seed;
  // mulberry32: small, seedable
  const random = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const between = (first: number, last: number) => first + Math.floor(random() * (last - first + 1));
  return Object.assign(random, {
    between,
    chance: (probability: number) => random() < probability,
    pick: <T>(list: readonly T[]) => list[between(0, list.length - 1)] as T,
    shuffled<T>(list: readonly T[]): T[] {
      const deck = [...list];
      for (let last = deck.length - 1; last > 0; last -= 1) {
        const other = between(0, last);
        [deck[last], deck[other]] = [deck[other] as T, deck[last] as T];
      }
      return deck;
    },
    fork(name: string): Random {
      let hash = seed ^ 0x811c9dc5; // FNV-1a
      for (let index = 0; index < name.length; index += 1) hash = Math.imul(hash ^ name.charCodeAt(index), 0x01000193);
      return randomFrom(hash >>> 0);
    },
  });
}
