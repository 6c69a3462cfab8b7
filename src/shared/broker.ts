// Keeps a process linked to RabbitMQ: one session after another, each with a fresh connection, until stopped. Whatever
// ends a session (socket, broker, closed channel, cancelled consumer) discards all of it and a new one starts after a
// pause, so no half-recovered channel is ever used.
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import amqp, { type ChannelModel } from 'amqplib';
import { brokerAdvice } from './broker-failure.ts';
import { brokerTlsOptions } from './broker-tls.ts';

/** From the first packet to the end of the handshake. */
const CONNECT_TIMEOUT_MS = 5000;
const CLOSE_TIMEOUT_MS = 2000;
/** Declaring and consuming take milliseconds; a broker that needs longer is asked again in a new session. */
const REQUEST_TIMEOUT_MS = 10_000;
/** How long the work in a session that is over may take to notice. */
const RUN_OUT_MS = 3000;
/** Notices a peer that vanished without a word, within two beats. */
const HEARTBEAT_S = 10;
const BACKOFF_MIN_MS = 100;
const BACKOFF_MAX_MS = 5000;

export interface BrokerSession {
  connection: ChannelModel;
  /** Aborted when the session is over; its reason says why. */
  signal: AbortSignal;
  /** Ends the session; the link opens the next one. */
  end(reason: Error): void;
}

/** Thrown when the broker leaves a request unanswered. */
export class BrokerTimeout extends Error {
  override name = 'BrokerTimeout';
}

/** The answer to a request to the broker, in a bounded time: amqplib itself waits for ever. @throws BrokerTimeout */
export async function answered<T>(what: string, request: PromiseLike<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new BrokerTimeout(`RabbitMQ did not answer within ${REQUEST_TIMEOUT_MS} ms: ${what}`)),
      REQUEST_TIMEOUT_MS,
    );
  });
  try {
    return await Promise.race([request, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/** Where the link tells how it fares. A Logger is one; subscribers of the client give their own. */
export interface LinkLog {
  info(message: string): void;
  warn(facts: LinkFailure, message: string): void;
  error(facts: LinkFailure, message: string): void;
}

export interface LinkFailure {
  err: Error;
  /** What to change, where waiting does not help. */
  advice?: string;
  attempt: number;
  /** Until the next attempt. */
  pauseMs: number;
}

export interface BrokerLink {
  readonly connected: boolean;
  /** Ends the present session after its `run` has returned. Harmless when called twice. */
  stop(): Promise<void>;
}

/**
 * Opens sessions until stopped.
 * @param run works with one session, until its signal is aborted. When it returns or throws, the session is closed.
 */
export function keepBrokerLink(options: {
  url: string;
  service: string;
  log: LinkLog;
  run: (session: BrokerSession) => Promise<void>;
}): BrokerLink {
  const { url, service, log, run } = options;
  const stopping = new AbortController();
  let connected = false;

  const finished = (async () => {
    for (let attempt = 1; !stopping.signal.aborted; attempt += 1) {
      const openedAtMs = performance.now();
      let ended: Error;
      try {
        const connection = await connect(url, service);
        connected = true;
        log.info('connected to RabbitMQ');
        ended = await runSession(connection, stopping.signal, run);
      } catch (error) {
        ended = error as Error;
      } finally {
        connected = false;
      }
      if (stopping.signal.aborted) return;
      if (performance.now() - openedAtMs > BACKOFF_MAX_MS) attempt = 1;
      const pauseMs = backOffMs(attempt);
      const advice = brokerAdvice(url, ended);
      if (advice)
        log.error({ err: ended, advice, attempt, pauseMs }, 'RabbitMQ refuses this service until that is changed');
      else log.warn({ err: ended, attempt, pauseMs }, 'RabbitMQ session ended');
      await delay(pauseMs, undefined, { signal: stopping.signal }).catch(() => {});
    }
  })();

  return {
    get connected() {
      return connected;
    },
    async stop() {
      stopping.abort(new Error('stopping'));
      await finished;
    },
  };
}

/** Connects within a bounded time. The caller owns the connection. */
export async function connect(url: string, service: string): Promise<ChannelModel> {
  const target = new URL(url);
  if (!target.searchParams.has('heartbeat')) target.searchParams.set('heartbeat', String(HEARTBEAT_S));
  const tlsOptions = brokerTlsOptions(url);
  // amqplib's own timeout is for silence only: a peer that talks slowly would hold us for ever.
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), CONNECT_TIMEOUT_MS);
  const socketOptions = {
    signal: late.signal, // for net.connect or tls.connect, which get all of these
    noDelay: true,
    keepAlive: true,
    clientProperties: { connection_name: `highload-balance ${service}` },
    ...tlsOptions,
  };
  try {
    const connection = await amqp.connect(target.href, socketOptions);
    // Without a listener an error is an uncaught exception. Every error is followed by close, which is what we act on.
    connection.on('error', () => {});
    coalesceWrites(socketOf(connection));
    return connection;
  } catch (error) {
    if (late.signal.aborted) throw new BrokerTimeout(`RabbitMQ did not let us in within ${CONNECT_TIMEOUT_MS} ms`);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** amqplib writes each frame by itself; what it writes in one turn of the event loop goes in one system call. */
function coalesceWrites(socket: Socket): void {
  const write = socket.write.bind(socket);
  socket.write = (...parameters: unknown[]) => {
    if (socket.writableCorked === 0) {
      socket.cork();
      process.nextTick(() => socket.uncork());
    }
    return write(...(parameters as Parameters<typeof write>));
  };
}

/** Not part of amqplib's interface, and there is no other way to it. */
function socketOf(connection: ChannelModel): Socket {
  return (connection.connection as unknown as { stream: Socket }).stream;
}

/** Closes politely, or by force where the peer does not answer: amqplib's close can hang for ever. */
export async function closeConnection(connection: ChannelModel): Promise<void> {
  const closed = connection.close().catch(() => {});
  const timeout = new AbortController();
  await Promise.race([closed, delay(CLOSE_TIMEOUT_MS, undefined, { signal: timeout.signal }).catch(() => {})]);
  timeout.abort();
  // With an error, which amqplib answers by failing every request that still waits, and ending its timers.
  socketOf(connection).destroy(new Error('connection given up'));
}

/** Returns what ended the session. */
async function runSession(
  connection: ChannelModel,
  stopping: AbortSignal,
  run: (session: BrokerSession) => Promise<void>,
): Promise<Error> {
  const over = new AbortController();
  const end = (reason: Error) => over.abort(reason);
  const onStop = () => end(stopping.reason);
  stopping.addEventListener('abort', onStop);
  if (stopping.aborted) onStop();
  connection.on('error', end); // first of all, and it says why; the channels' own end does not
  connection.on('close', (error?: Error) => end(error ?? new Error('connection closed')));
  // A run that hangs on an unanswered request goes on only when its connection is closed, so it is not waited for long.
  const ranOut = new Promise<void>((resolve) => {
    over.signal.addEventListener('abort', () => setTimeout(resolve, RUN_OUT_MS).unref());
  });
  try {
    await Promise.race([run({ connection, signal: over.signal, end }), ranOut]);
  } catch (error) {
    end(error as Error); // unless something else came first: then this is only what followed from it
  } finally {
    end(new Error('its work was done'));
    stopping.removeEventListener('abort', onStop);
    await closeConnection(connection);
  }
  return over.signal.reason;
}

/** Milliseconds before the next attempt: exponential, with jitter so that a fleet does not come back in one wave. */
export function backOffMs(attempt: number): number {
  const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(attempt, 10));
  return Math.round(ceiling * (0.5 + Math.random() / 2));
}
