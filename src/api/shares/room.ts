// Memory that clients fill together, such as bodies that have not ended. When it is full the client
// that holds the most gives some up: so a client within its share always finds room, whatever the
// others hold and for however long.

/** Something of a client that takes room. */
export interface Holding {
  /** Sets how much it takes now. */
  set(bytes: number): void;
}

interface Held {
  bytes: number;
  giveUp: () => void;
}

interface Client {
  bytes: number;
  /** Oldest first. */
  held: Set<Held>;
}

export class Room {
  readonly #bytesMax: number;
  readonly #clients = new Map<string, Client>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** @param giveUp is called where there is no room for it any more: it then takes none. */
  holding(client: string, giveUp: () => void): Holding {
    const held: Held = { bytes: 0, giveUp };
    return {
      set: (bytes) => {
        this.#change(client, held, bytes);
        while (this.#bytes > this.#bytesMax) this.#makeRoom(client, held);
      },
    };
  }

  #change(name: string, held: Held, bytes: number): void {
    if (bytes === held.bytes) return;
    const client = this.#clients.get(name) ?? { bytes: 0, held: new Set() };
    const more = bytes - held.bytes;
    this.#bytes += more;
    client.bytes += more;
    held.bytes = bytes;
    if (bytes > 0) {
      client.held.add(held);
      this.#clients.set(name, client);
    } else {
      client.held.delete(held);
      if (client.held.size === 0) this.#clients.delete(name);
    }
  }

  /** Of the client that holds the most: what asked for more is its own, or else the oldest, which may never end. */
  #makeRoom(asking: string, held: Held): void {
    let most = asking;
    let { bytes } = this.#clients.get(asking) ?? { bytes: 0 };
    for (const [name, client] of this.#clients) {
      if (client.bytes <= bytes) continue;
      most = name;
      bytes = client.bytes;
    }
    const [oldest] = (this.#clients.get(most) as Client).held;
    const victim = most === asking && held.bytes > 0 ? held : (oldest as Held);
    this.#change(most, victim, 0);
    victim.giveUp();
  }
}
