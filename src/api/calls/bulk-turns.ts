// Bulk requests wait here unparsed until the lanes need more from their client: one is as much work
// as a hundred single updates. So a client that sends too much does not slow down the others. They
// are parsed one after another, about one in a turn of the event loop, and everything else is
// served in between. While other clients wait for answers, the next one is only parsed after the
// loop has had some idle time since the last. Idle time also reflects work that bulk causes later,
// such as publishing its events.
import type { Response } from 'express';
import { RequestProblem } from '../http/problems.ts';
import { turnIn } from '../http/turn.ts';
import { Line } from '../shares/line.ts';
import type { Lanes } from '../updates/lanes.ts';

const WAITING_MAX = 1000;
/** Longer than most clients wait for an answer. */
const WAIT_MAX_MS = 5000;
/**
 * About 500 updates, which take about 3 ms: the most in one turn of the event loop, and for one
 * client.
 */
const TURN_BYTES = 16_384;
/**
 * If the event loop was idle for at least this part of the time since the last body, no client has
 * to rest.
 */
const IDLE_MIN = 0.5;
/**
 * While others send too, a client rests this long after each TURN_BYTES, times the number of
 * clients that send bulk; but no longer than REST_MS_MAX.
 */
const REST_MS = 50;
const REST_MS_MAX = 2000;
const LOOK_AGAIN_MS = 5;
/** A client counts as sending bulk if it was served within this time. */
const COMES_MS = 1000;

export interface BulkTurns {
  /** Called before the body is read. @throws RequestProblem overloaded if it would not be taken. */
  check(response: Response): void;
  /**
   * Parses a body of so many bytes when it is next, and the one before it is done.
   * @param parse what it resolves to goes to the lanes at once, so that they show whether they need
   * more.
   * @throws RequestProblem overloaded, also if the client has left.
   */
  run<Result>(response: Response, bytes: number, parse: () => Promise<Result>): Promise<Result>;
  /** Call it when the lanes may need more. */
  look(): void;
}

/**
 * @param legsMax legs of all clients that may wait in the lanes; above that, nothing more is
 * parsed.
 */
export function createBulkTurns(
  lanes: Pick<Lanes, 'bulkWaiting' | 'singlesCome'>,
  legsMax: number,
  clientOf: (response: Response) => string,
): BulkTurns {
  const line = new Line<() => void>(WAITING_MAX, TURN_BYTES);
  /** Until when each client that sends bulk rests. */
  const rests = new Map<string, number>();
  let isPlanned = false;
  let isParsing = false;
  /** Bytes parsed since the event loop last served everything else. */
  let turnBytes = 0;
  let last = { atMs: Number.NEGATIVE_INFINITY, loop: performance.eventLoopUtilization() };

  function isNeeded(client: string): boolean {
    const { legs, clients } = lanes.bulkWaiting(client);
    return legs < legsMax / Math.max(1, legs > 0 ? clients : clients + 1);
  }

  /** @returns which clients need not rest now. */
  function restedBy(nowMs: number): (client: string) => boolean {
    for (const [client, untilMs] of rests) if (nowMs - untilMs > COMES_MS) rests.delete(client);
    if (!lanes.singlesCome() && rests.size <= 1) return () => true;
    const isIdle = performance.eventLoopUtilization(last.loop).utilization <= 1 - IDLE_MIN;
    if (isIdle && nowMs - last.atMs >= LOOK_AGAIN_MS) return () => true;
    return (client) => nowMs >= (rests.get(client) ?? 0);
  }

  function rest(client: string, bytes: number, nowMs: number): void {
    rests.set(client, nowMs); // so that rests.size counts it
    rests.set(client, nowMs + Math.min(REST_MS_MAX, (rests.size * REST_MS * bytes) / TURN_BYTES));
    last = { atMs: nowMs, loop: performance.eventLoopUtilization() };
  }

  function serve(): void {
    if (isParsing || line.size === 0) return;
    if (turnBytes >= TURN_BYTES) {
      plan(0);
      return;
    }
    const nowMs = performance.now();
    const hasRested = restedBy(nowMs);
    const place = line.next((client) => hasRested(client) && isNeeded(client));
    if (place) {
      isParsing = true;
      turnBytes += place.cost;
      rest(place.client, place.cost, nowMs);
      place.work();
    } else plan(LOOK_AGAIN_MS); // each client rests, or the lanes have enough from it
  }

  function plan(ms: number): void {
    if (isPlanned) return;
    isPlanned = true;
    const begin = () => {
      isPlanned = false;
      turnBytes = 0;
      serve();
    };
    if (ms > 0) setTimeout(begin, ms);
    else setImmediate(begin);
  }

  function look(): void {
    if (!isParsing && line.size > 0) plan(0);
  }

  return {
    check(response) {
      if (line.isFull(clientOf(response)))
        throw new RequestProblem('overloaded', { detail: 'Too many of your bulk requests wait.' });
    },
    async run(response, bytes, parse) {
      const turn = turnIn(line, clientOf(response), response, WAIT_MAX_MS, bytes);
      look();
      await turn;
      try {
        return await parse();
      } finally {
        isParsing = false;
        process.nextTick(serve); // after the promises: the lanes have it by then
      }
    },
    look,
  };
}
