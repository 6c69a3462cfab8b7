// Limits how many single operations are in flight when several clients send some: about as many as
// are answered in a few hundredths of a second, divided among the clients. The rest wait here, each
// client in turn. Otherwise a client with hundreds of connections would delay all others, even
// though nothing is refused.
//
// A single active client is not limited: more at a time is cheaper. Nor is a client below its
// share, no matter what the others have in flight.
import type { RequestHandler, Response } from 'express';
import { turnIn } from '../http/turn.ts';
import { Line } from '../shares/line.ts';

/** Operations in flight should be answered within this time. */
const ANSWER_MS = 30;
const AT_A_TIME_MIN = 64;
const RATE_EVERY_MS = 100;
const WAITING_MAX = 2000;
/** Longer than most clients wait for an answer. */
const WAIT_MAX_MS = 5000;

export interface Crowd {
  /** The handler of a single operation, called when it may be worked on. */
  limited(handler: RequestHandler): RequestHandler;
}

export function createCrowd(
  clientOf: (response: Response) => string,
  now: () => number = () => performance.now(),
): Crowd {
  const line = new Line<() => void>(WAITING_MAX);
  /** In flight, of each client that has some. */
  const inFlight = new Map<string, number>();
  let total = 0;
  let atATime = AT_A_TIME_MIN;
  let answered = 0;
  let countedSinceMs = now();

  const mayBegin = (client: string) =>
    total < atATime || inFlight.size === 1 || (inFlight.get(client) ?? 0) < atATime / inFlight.size;

  function begin(client: string): void {
    inFlight.set(client, (inFlight.get(client) ?? 0) + 1);
    total += 1;
  }

  function end(client: string): void {
    total -= 1;
    const left = (inFlight.get(client) ?? 1) - 1;
    if (left > 0) inFlight.set(client, left);
    else inFlight.delete(client);
    answered += 1;
    const elapsedMs = now() - countedSinceMs;
    if (elapsedMs >= RATE_EVERY_MS) {
      atATime = Math.max(AT_A_TIME_MIN, (atATime + (answered * ANSWER_MS) / elapsedMs) / 2);
      answered = 0;
      countedSinceMs += elapsedMs;
    }
    for (let place = line.next(mayBegin); place; place = line.next(mayBegin)) {
      begin(place.client);
      place.work();
    }
  }

  return {
    limited: (handler) => async (request, response, next) => {
      const client = clientOf(response);
      if (mayBegin(client) && !line.has(client)) begin(client);
      else await turnIn(line, client, response, WAIT_MAX_MS);
      try {
        await handler(request, response, next);
      } finally {
        end(client);
      }
    },
  };
}
