// Long work of requests, in pieces of a few milliseconds with a turn of the event loop between
// them, in which all others are served. A turn has one piece, however many requests have long work:
// they run one after another, so that each finishes as soon as possible, and waiting requests only
// hold what they arrived with.

/**
 * A request that arrives meanwhile waits that long. Much shorter pieces would only cost long work
 * more turns.
 */
const PIECE_MS = 5;

/**
 * Ends the piece and continues in a new turn, if this one has used up its time.
 * @param usedMsMax a lower limit than that of a piece, before work that cannot be divided.
 */
export type Pause = (usedMsMax?: number) => Promise<void> | undefined;

export interface Pieces {
  /**
   * Does the work when its turn comes. It must await `pause` often, and nothing else that takes
   * long: others wait for it.
   */
  run<Result>(work: (pause: Pause) => Promise<Result>): Promise<Result>;
}

export function createPieces(pieceMs = PIECE_MS): Pieces {
  const waiting: (() => void)[] = [];
  let isBusy = false;
  /** How much of this turn was used by work that is done. */
  let usedMs = 0;
  let startedAtMs = 0;

  const nextTurn = () =>
    new Promise<void>((resolve) => {
      setImmediate(() => {
        startedAtMs = performance.now();
        resolve();
      });
    });
  const pause: Pause = (usedMsMax = pieceMs) => (performance.now() - startedAtMs < usedMsMax ? undefined : nextTurn());

  async function begin(): Promise<void> {
    if (isBusy) await new Promise<void>((resolve) => waiting.push(resolve));
    isBusy = true;
    startedAtMs = performance.now() - usedMs;
    // The code that led here has already used some of this turn.
    if (usedMs === 0 || usedMs >= pieceMs) await nextTurn();
  }

  function end(): void {
    if (usedMs === 0) setImmediate(() => (usedMs = 0));
    usedMs = performance.now() - startedAtMs;
    const next = waiting.shift();
    if (next) next();
    else isBusy = false;
  }

  return {
    async run(work) {
      await begin();
      try {
        return await work(pause);
      } finally {
        end();
      }
    },
  };
}

/** Maps the items one after another. */
export async function mapInPieces<Item, Result>(
  items: readonly Item[],
  map: (item: Item) => Result,
  pause: Pause,
): Promise<Result[]> {
  const results: Result[] = [];
  for (const item of items) {
    await pause();
    results.push(map(item));
  }
  return results;
}

/** Characters that are encoded at a time: about 0.1 ms. */
const ENCODED_MAX = 65_536;

/**
 * The texts of all items, one after another, as UTF-8 in several buffers: a large string would cost
 * a turn to join, and another to send.
 */
export async function encodeInPieces<Item>(
  items: readonly Item[],
  textOf: (item: Item, index: number) => string,
  pause: Pause,
): Promise<Buffer[]> {
  const encoded: Buffer[] = [];
  let text = '';
  for (const [index, item] of items.entries()) {
    await pause();
    text += textOf(item, index);
    if (text.length < ENCODED_MAX) continue;
    encoded.push(Buffer.from(text));
    text = '';
  }
  if (text !== '') encoded.push(Buffer.from(text));
  return encoded;
}
