// How often accounts were changed lately, roughly and in bounded memory: accounts share counters by
// the hash of their id.

/** 16 KiB. Two busy accounts rarely share one; where they do, each only looks busier than it is. */
const COUNTERS = 4096;
/**
 * After so many legs all counters are halved: an account that was busy a few seconds ago does not
 * stay busy.
 */
const HALVE_AFTER_LEGS = 65_536;
/**
 * An account is the busiest by so much, or none is. Two that are equally busy must not take turns.
 */
const BUSIER = 2;

export interface Heat {
  /**
   * Counts the legs.
   * @returns the hash of the account that is busier by far than the others, or of the lowest id
   * where none is: for an operation of one account always its own.
   */
  busiest(legs: readonly { accountId: string }[]): number;
}

export function createHeat(): Heat {
  const counters = new Uint32Array(COUNTERS);
  let counted = 0;

  function count(hash: number): number {
    const place = hash % COUNTERS;
    const heat = (counters[place] as number) + 1;
    counters[place] = heat;
    return heat;
  }

  return {
    busiest(legs) {
      counted += legs.length;
      if (counted > HALVE_AFTER_LEGS) {
        counted = 0;
        for (let place = 0; place < COUNTERS; place += 1) counters[place] = (counters[place] as number) >>> 1;
      }
      let [first] = legs as [{ accountId: string }];
      const firstHash = hashOf(first.accountId);
      let [hottest, hottestHash, second] = [count(firstHash), firstHash, 0];
      let lowestHash = firstHash;
      for (let index = 1; index < legs.length; index += 1) {
        const leg = legs[index] as { accountId: string };
        const hash = hashOf(leg.accountId);
        const heat = count(hash);
        if (heat > hottest) {
          second = hottest;
          hottest = heat;
          hottestHash = hash;
        } else if (heat > second && hash !== hottestHash) second = heat;
        if (leg.accountId < first.accountId) {
          first = leg;
          lowestHash = hash;
        }
      }
      return hottest >= BUSIER * second ? hottestHash : lowestHash;
    },
  };
}

/** FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
function hashOf(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  return value >>> 0;
}
