// How a stop lets clients leave. First the server keeps listening and answers with
// `Connection: close`, so that clients disconnect by themselves and no request meets a closed
// connection. This lasts until no request has arrived for LEAVE_QUIET_MS, but at least drainMsMin
// and at most DRAIN_MS_MAX. Then it stops listening and waits for the answers in flight.
import type { Server } from 'node:http';
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { DRAIN_MS_MAX } from '../../shared/config.ts';
import { within } from '../../shared/within.ts';
import type { Listeners } from './listeners.ts';

const LEAVE_QUIET_MS = 250;
/**
 * A process that was paused has yet to accept and read what arrived meanwhile. It does so in this
 * many turns of the event loop, each of which accepts one connection per listening socket.
 */
const LEAVE_TURNS = 10;
/** How long a connection that was just accepted may take to send its first request. */
const FIRST_REQUEST_MS = 2000;
/** How long a stop then waits for answers in flight. */
const DRAIN_TIMEOUT_MS = 12_000;

export interface Leaving {
  /** Whether the stop has begun. */
  began(): boolean;
  /** Records that a request arrived after the stop began. */
  noteRequest(): void;
  /** Idempotent. Resolves when all connections have ended. */
  stop(listeners: Listeners): Promise<void>;
}

/**
 * @param areAllServed whether every open connection has sent a request.
 * @param drainMsMin how long a stop goes on listening although no request arrives.
 */
export function createLeaving(server: Server, areAllServed: () => boolean, drainMsMin: number): Leaving {
  let stopping: Promise<void> | undefined;
  let lastRequestAtMs = 0;

  async function letLeave(): Promise<void> {
    const startedAtMs = performance.now();
    lastRequestAtMs = startedAtMs;
    const dueAtMs = () => Math.max(startedAtMs + drainMsMin, lastRequestAtMs + LEAVE_QUIET_MS);
    for (let nowMs = startedAtMs; nowMs < startedAtMs + DRAIN_MS_MAX; nowMs = performance.now()) {
      await delay(dueAtMs() - nowMs);
      await catchUp();
      if (performance.now() >= dueAtMs()) return;
    }
  }

  async function close(listeners: Listeners): Promise<void> {
    const startedAtMs = performance.now();
    const idle = setInterval(async () => {
      await catchUp();
      if (areAllServed() || performance.now() > startedAtMs + FIRST_REQUEST_MS) server.closeIdleConnections();
    }, LEAVE_QUIET_MS);
    const closed = listeners.close();
    await within(DRAIN_TIMEOUT_MS, closed, () => server.closeAllConnections());
    await closed;
    clearInterval(idle);
    server.close(); // ends its timers
  }

  return {
    began: () => stopping !== undefined,
    noteRequest() {
      lastRequestAtMs = performance.now();
    },
    stop(listeners) {
      stopping ??= letLeave().then(() => close(listeners));
      return stopping;
    },
  };
}

async function catchUp(): Promise<void> {
  for (let turns = 0; turns < LEAVE_TURNS; turns += 1) await turn();
}
