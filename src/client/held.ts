// The events of one account that are in hand, by version. A version may have several: one from each
// history.
import type { BalanceEvent } from '../shared/contract.ts';

/** Most accounts that are remembered have nothing in hand: a map of its own for each would be a third of their memory. */
const NONE = new Map<never, never>();

export class Held<Item extends { event: BalanceEvent }> {
  #versions: Map<number, Item[]> = NONE;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Of one version, the highest epoch first. */
  at(version: number): readonly Item[] {
    return this.#versions.get(version) ?? [];
  }

  find({ id, data }: BalanceEvent): Item | undefined {
    return this.at(data.version).find(({ event }) => event.id === id);
  }

  add(item: Item): void {
    const { version } = item.event.data;
    const items = [...this.at(version), item].sort((one, other) => other.event.data.epoch - one.event.data.epoch);
    this.#ownVersions().set(version, items);
    this.#size += 1;
  }

  /** @returns the item of this event, which may be another copy than the one that was begun with. */
  remove(event: BalanceEvent): Item | undefined {
    const { version } = event.data;
    const found = this.find(event);
    if (!found) return undefined;
    const rest = this.at(version).filter((item) => item !== found);
    if (rest.length > 0) this.#ownVersions().set(version, rest);
    else this.#ownVersions().delete(version);
    this.#size -= 1;
    if (this.#size === 0) this.#versions = NONE;
    return found;
  }

  /** Of the lowest version, the one with the highest epoch. */
  lowest(): Item | undefined {
    let lowest = Number.POSITIVE_INFINITY;
    for (const version of this.#versions.keys()) lowest = Math.min(lowest, version);
    return this.at(lowest)[0];
  }

  upTo(version: number): Item[] {
    return [...this.#versions].flatMap(([one, items]) => (one <= version ? items : []));
  }

  clear(): void {
    this.#versions = NONE;
    this.#size = 0;
  }

  #ownVersions(): Map<number, Item[]> {
    if (this.#versions === NONE) this.#versions = new Map();
    return this.#versions;
  }
}
