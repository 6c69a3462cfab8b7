// Queues the database statements of all calls but updates. At most as many are in flight as the
// pool has connections. The rest wait here, each client in turn; a request whose client has left is
// dropped before its first statement.
import type { Response } from 'express';
import type { Pool } from '../../shared/database.ts';
import { clientLeft, turnIn } from '../http/turn.ts';
import { Line } from '../shares/line.ts';
import { inDatabase } from './account-request.ts';
import type { Pace } from './pace.ts';

const WAITING_MAX = 1000;
/** Longer than most clients wait for an answer. */
const WAIT_MAX_MS = 5000;
/** As long as a client may take to read the slice before. */
const SLICE_WAIT_MAX_MS = 60_000;

/**
 * Both resolve to what `ask` does, and refuse as overloaded if too many wait or the client has
 * left.
 */
export interface QueryLine {
  /** For statements that are safe to retry. @throws RequestProblem overloaded, unavailable. */
  query<T>(response: Response, ask: (pool: Pool) => Promise<T>): Promise<T>;
  /**
   * For a part of a long answer: it gets its turn, however many other requests of its client wait.
   */
  slice<T>(response: Response, ask: (pool: Pool) => Promise<T>): Promise<T>;
  /** Requests that wait. */
  waiting(): number;
}

export interface QueryLineOptions {
  pool: Pool;
  connections: number;
  clientOf: (response: Response) => string;
  /** When the next may begin; without it, as soon as a connection is free. */
  pace?: Pace;
}

export function createQueryLine({ pool, connections, clientOf, pace }: QueryLineOptions): QueryLine {
  const queries = new Line<() => void>(WAITING_MAX);
  const slices = new Line<() => void>(WAITING_MAX); // each answer has one at most
  let running = 0;
  let isSlicesTurn = false;
  let isPaused = false;

  function serve(): void {
    while (running < connections) {
      if (queries.size + slices.size === 0) return;
      const waitMs = pace?.waitMs() ?? 0;
      if (waitMs > 0) {
        pause(waitMs);
        return;
      }
      isSlicesTurn = !isSlicesTurn;
      const place = isSlicesTurn ? (slices.next() ?? queries.next()) : (queries.next() ?? slices.next());
      running += 1;
      place?.work();
    }
  }

  function pause(ms: number): void {
    if (isPaused) return;
    isPaused = true;
    setTimeout(() => {
      isPaused = false;
      serve();
    }, ms);
  }

  async function inTurn<T>(line: Line<() => void>, response: Response, ask: (pool: Pool) => Promise<T>): Promise<T> {
    if (response.destroyed) throw clientLeft();
    const isFree = queries.size + slices.size === 0 && running < connections && (pace?.waitMs() ?? 0) === 0;
    if (isFree) running += 1;
    else {
      const turn = turnIn(line, clientOf(response), response, line === slices ? SLICE_WAIT_MAX_MS : WAIT_MAX_MS);
      serve();
      await turn;
    }
    try {
      return await ask(pool);
    } finally {
      running -= 1;
      serve();
    }
  }

  return {
    query: (response, ask) => inDatabase(() => inTurn(queries, response, ask)),
    slice: (response, ask) => inTurn(slices, response, ask),
    waiting: () => queries.size + slices.size,
  };
}
