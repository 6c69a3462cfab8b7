// The events of one account in the order of their versions. What was handled is a repeat, what came too early is held.

/** The last version of an account of which none was handled: its opening is version 0. */
export const UNSEEN = -1;

export interface MissingVersions {
  firstMissing: number;
  lastMissing: number;
}

/** Each item that was offered and taken leaves it once: by handled(), by start(), by skipTo() or by forget(). */
export class Sequence<T> {
  /** The last version handled; undefined until start(), and again after forget(). */
  #last: number | undefined;
  /** What #last was before it was forgotten. */
  #lastKnown: number | undefined;
  readonly #held = new Map<number, T>();

  get isStarted(): boolean {
    return this.#last !== undefined;
  }

  /** How many are held, the next one included. */
  get size(): number {
    return this.#held.size;
  }

  /** The item of a version that was not handled yet. */
  held(version: number): T | undefined {
    return this.#held.get(version);
  }

  /** @returns false for a repeat, which is not kept. */
  offer(version: number, item: T): boolean {
    if (version <= (this.#last ?? UNSEEN) || this.#held.has(version)) return false;
    this.#held.set(version, item);
    return true;
  }

  /**
   * @param last the last version handled; undefined where nobody knows: then what was handled here, else the sequence begins with
   * the lowest version held.
   * @returns what turns out to be a repeat.
   */
  start(last: number | undefined): T[] {
    this.#last = last ?? this.#lastKnown ?? this.#lowest() - 1;
    this.#lastKnown = this.#last;
    return this.#release(this.#last);
  }

  /** The item to handle, where the next version is there. It stays held, so that a second copy is known for a repeat. */
  next(): { version: number; item: T } | undefined {
    if (this.#last === undefined) return undefined;
    const version = this.#last + 1;
    const item = this.#held.get(version);
    return item === undefined ? undefined : { version, item };
  }

  /** @returns the item of that version, which may be another copy when the sequence was forgotten meanwhile. */
  handled(version: number): T | undefined {
    this.#lastKnown = version;
    if (this.#last !== undefined) this.#last = version;
    const item = this.#held.get(version);
    this.#held.delete(version);
    return item;
  }

  /** The versions before the lowest one held, where the next is not there. */
  gap(): MissingVersions | undefined {
    if (this.#last === undefined || this.#held.size === 0 || this.#held.has(this.#last + 1)) return undefined;
    return { firstMissing: this.#last + 1, lastMissing: this.#lowest() - 1 };
  }

  /** Goes on after a version as if it had been handled. @returns what is a repeat now. */
  skipTo(version: number): T[] {
    this.#lastKnown = Math.max(version, this.#lastKnown ?? UNSEEN);
    if (this.#last === undefined) return [];
    this.#last = Math.max(version, this.#last);
    return this.#release(this.#last);
  }

  /** Drops what is held: it is delivered again. Others may handle some of it until then, so start() has to follow. */
  forget(): void {
    this.#held.clear();
    this.#last = undefined;
  }

  #lowest(): number {
    let lowest = Number.POSITIVE_INFINITY;
    for (const version of this.#held.keys()) lowest = Math.min(lowest, version);
    return lowest;
  }

  #release(last: number): T[] {
    const released: T[] = [];
    for (const [version, item] of this.#held) {
      if (version > last) continue;
      released.push(item);
      this.#held.delete(version);
    }
    return released;
  }
}
