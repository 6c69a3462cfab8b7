// Serves the requests of one connection one after another, so that unread answers delay its next
// request, and so few in a turn of the event loop that other connections get their time.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Lingering } from './lingering.ts';

type Serve = (request: IncomingMessage, response: ServerResponse) => void;

/**
 * Requests that one connection may have in flight or waiting. The next one is refused and ends the
 * connection.
 */
const WAITING_MAX = 100;
const SERVED_PER_TURN = 16;
/**
 * The parser processes a whole packet, which takes about 10 ms: a client may send one occasionally.
 */
const REFUSED_AFTER_MS = 1000;

export interface Pipelines {
  take: Serve;
  /** Whether it sent too many: what else came in the same packet counts for nothing. */
  isOverfull(socket: Socket): boolean;
  /**
   * The requests of a connection, oldest first. Finished ones are dropped when its next request
   * arrives.
   */
  underWay(socket: Socket): readonly ServerResponse[];
}

/** @param refuse answers the request that was one too many. */
export function createPipelines(
  lingering: Lingering,
  serve: Serve,
  refuse: (response: ServerResponse) => void,
): Pipelines {
  const underWay = new WeakMap<Socket, ServerResponse[]>();
  const overfull = new WeakSet<Socket>();
  /** How many of each in this turn. */
  let served = new Map<Socket, number>();

  /** A new map: docs/decisions/031-garbage-in-chains.md. */
  function startTurn(): void {
    served = new Map();
  }

  function serveInTurn(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    if (!socket.writable) return; // it was ended by the answer before
    const times = served.get(socket) ?? 0;
    if (times >= SERVED_PER_TURN) {
      setImmediate(serveInTurn, request, response);
      return;
    }
    if (served.size === 0) setImmediate(startTurn);
    served.set(socket, times + 1);
    serve(request, response);
  }

  function wait(earlier: readonly ServerResponse[], request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    const line = earlier.filter((one) => !one.writableFinished);
    underWay.set(socket, line);
    if (line.length >= WAITING_MAX) {
      overfull.add(socket);
      response.setHeader('connection', 'close');
      lingering.afterAnswer(socket);
      lingering.deafen(socket);
      setTimeout(refuse, REFUSED_AFTER_MS, response);
      return;
    }
    const previous = line.at(-1);
    line.push(response);
    if (previous) previous.on('close', () => serveInTurn(request, response));
    else serveInTurn(request, response);
  }

  return {
    take(request, response) {
      const { socket } = request;
      const earlier = underWay.get(socket);
      if (earlier === undefined) underWay.set(socket, [response]);
      else if (earlier.length === 1 && earlier[0]?.writableFinished) earlier[0] = response;
      else return wait(earlier, request, response);
      serveInTurn(request, response);
    },
    isOverfull: (socket) => overfull.has(socket),
    underWay: (socket) => underWay.get(socket) ?? [],
  };
}
