// Who watches the console of this process. Each watcher gets what its key may see. One that reads
// too slowly is dropped, and so is one whose key no longer counts: its page connects again, and
// learns what is wrong with the key.
import type { Response } from 'express';

const WATCHERS_MAX = 20;
/** A watcher that reads more slowly than it is written to is dropped. */
const UNREAD_BYTES_MAX = 256 * 1024;

/** A prefix of account ids; null: all. */
export type Bound = string | null;

export interface WatchersOptions {
  clientOf: (response: Response) => string;
  /** Whether the key that a stream was asked for with still counts. */
  mayGoOn: (response: Response) => boolean;
  /** What that key is bound to. */
  boundOf: (response: Response) => Bound;
}

export class Watchers {
  static readonly max = WATCHERS_MAX;
  readonly #options: WatchersOptions;
  /** The client of each watcher; oldest watcher first. */
  readonly #clients = new Map<Response, string>();

  constructor(options: WatchersOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#clients.size;
  }

  get isFull(): boolean {
    return this.size >= WATCHERS_MAX;
  }

  add(watcher: Response): void {
    this.#clients.set(watcher, this.#options.clientOf(watcher));
  }

  remove(watcher: Response): void {
    this.#clients.delete(watcher);
  }

  /**
   * Makes room for this client: ends the newest stream of the client that has the most, if that is
   * more than this client would then have.
   * @returns whether there is room now.
   */
  makeRoom(client: string): boolean {
    if (!this.isFull) return true;
    const byClient = Map.groupBy(this.#clients, ([, owner]) => owner);
    const [most = []] = [...byClient.values()].sort((one, other) => other.length - one.length);
    if (most.length <= (byClient.get(client)?.length ?? 0) + 1) return false;
    this.#end((most.at(-1) as [Response, string])[0]);
    return true;
  }

  /**
   * Sends each watcher what its key may see, or nothing if `seenBy` returns undefined. If its key
   * is no longer valid, the stream ends instead: the page reconnects and learns what is wrong.
   */
  tell(event: string, seenBy: (bound: Bound) => object | undefined): void {
    const texts = new Map<Bound, string | undefined>();
    for (const watcher of this.#clients.keys()) {
      if (!this.#options.mayGoOn(watcher)) {
        this.#end(watcher);
        continue;
      }
      const bound = this.#options.boundOf(watcher);
      if (!texts.has(bound)) {
        const data = seenBy(bound);
        texts.set(bound, data && `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
      }
      const text = texts.get(bound);
      if (watcher.writableLength > UNREAD_BYTES_MAX) watcher.destroy();
      else if (text !== undefined) watcher.write(text);
    }
  }

  endAll(): void {
    for (const watcher of this.#clients.keys()) this.#end(watcher);
  }

  #end(watcher: Response): void {
    this.#clients.delete(watcher);
    watcher.end();
  }
}
