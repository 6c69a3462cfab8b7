// Work that waits, by client: clients take turns (surplus round robin), so a client never waits for
// more turns than there are clients, however much any of them has sent. When all places are taken,
// the client that has the most of them gives one up for another that has fewer.

export interface Place<T> {
  readonly client: string;
  readonly work: T;
  readonly cost: number;
  readonly onPushedOut: () => void;
}

interface Client<T> {
  /** At least one, oldest first. */
  places: Set<Place<T>>;
  /** What it may still cost in this round; not above 0 where its last work cost more. */
  credit: number;
}

export class Line<T> {
  /** In the order of their turns. */
  readonly #clients = new Map<string, Client<T>>();
  readonly #placesMax: number;
  readonly #turnCost: number;
  #taken = 0;

  /** @param turnCost of the work of one turn, or of one that costs more alone. */
  constructor(placesMax: number, turnCost = 1) {
    this.#placesMax = placesMax;
    this.#turnCost = turnCost;
  }

  get size(): number {
    return this.#taken;
  }

  has(client: string): boolean {
    return this.#clients.has(client);
  }

  /** Whether there is no place for this client. */
  isFull(client: string): boolean {
    return this.#taken >= this.#placesMax && this.#yielding(client) === undefined;
  }

  /**
   * Undefined where it is full.
   * @param onPushedOut is called where its place goes to another client.
   */
  add(client: string, work: T, cost = 1, onPushedOut: () => void = () => {}): Place<T> | undefined {
    if (this.isFull(client)) return undefined;
    if (this.#taken >= this.#placesMax) {
      const newest = [...(this.#yielding(client)?.places ?? [])].at(-1) as Place<T>;
      this.leave(newest);
      newest.onPushedOut();
    }
    const place = { client, work, cost, onPushedOut };
    const own = this.#clients.get(client);
    if (own) own.places.add(place);
    else this.#clients.set(client, { places: new Set([place]), credit: 0 });
    this.#taken += 1;
    return place;
  }

  /** Idempotent; also of a place that had its turn. */
  leave(place: Place<T>): void {
    const own = this.#clients.get(place.client);
    if (!own?.places.delete(place)) return;
    this.#taken -= 1;
    if (own.places.size === 0) this.#clients.delete(place.client);
  }

  /** The client with the most places, unless another client would then have as many. */
  #yielding(asking: string): Client<T> | undefined {
    let most: Client<T> | undefined;
    for (const one of this.#clients.values()) if (one.places.size > (most?.places.size ?? 0)) most = one;
    return most && most.places.size > (this.#clients.get(asking)?.places.size ?? 0) + 1 ? most : undefined;
  }

  /** The first of the next client that may have a turn now. It has left the line. */
  next(may: (client: string) => boolean = () => true): Place<T> | undefined {
    for (const [client, own] of this.#clients) {
      if (!may(client)) continue;
      if (own.credit <= 0) own.credit += this.#turnCost;
      const [place] = own.credit > 0 ? own.places : [];
      if (place) own.credit -= place.cost;
      if (own.credit <= 0) {
        this.#clients.delete(client); // to the end, where this loop meets it again
        this.#clients.set(client, own);
      }
      if (!place) continue;
      this.leave(place);
      return place;
    }
    return undefined;
  }
}
