// Places that clients keep for long: each client may have a few, and one while half of all are taken.

export class Slots {
  readonly #all: number;
  readonly #each: number;
  readonly #taken = new Map<string, number>();
  #count = 0;

  constructor(all: number, each: number) {
    this.#all = all;
    this.#each = each;
  }

  /**
   * @returns a function that gives the place back, to be called once; undefined if there is none
   * for this client.
   */
  take(client: string): (() => void) | undefined {
    const own = this.#taken.get(client) ?? 0;
    const each = 2 * this.#count < this.#all ? this.#each : 1;
    if (this.#count >= this.#all || own >= each) return undefined;
    this.#count += 1;
    this.#taken.set(client, own + 1);
    return () => {
      this.#count -= 1;
      const left = (this.#taken.get(client) ?? 1) - 1;
      if (left > 0) this.#taken.set(client, left);
      else this.#taken.delete(client);
    };
  }
}
