// Keeps a process linked to RabbitMQ: one session after another, each with a fresh connection,
// until stopped. Whatever ends a session (socket, broker, closed channel, cancelled consumer)
// discards all of it and a new one starts, so no half-recovered channel is ever used: with the next
// node at once, and after a pause once every node was tried.
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import amqp, { type ChannelModel } from 'amqplib';
import { backOffMs, jittered } from './back-off.ts';
import { brokerAdvice, NoBroker } from './broker-failure.ts';
import { brokerTlsOptions } from './broker-tls.ts';
import { brokerOf, shuffledBrokerUrls } from './broker-urls.ts';
import { within } from './within.ts';

/** From the first packet to the end of the handshake. */
const CONNECT_TIMEOUT_MS = 5000;
const CLOSE_TIMEOUT_MS = 2000;
/** Declaring and consuming take milliseconds; a broker that needs longer is asked again in a new session. */
const REQUEST_TIMEOUT_MS = 10_000;
/** How long the work in a session that is over may take to notice. */
const RUN_OUT_MS = 3000;
/** Detects a peer that vanished silently, within two heartbeats. */
const HEARTBEAT_S = 10;
const PAUSE_MIN_MS = 200;
const PAUSE_MAX_MS = 5000;

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

/**
 * The answer to a request to the broker, in a bounded time: amqplib itself waits indefinitely.
 * @throws BrokerTimeout
 */
export function answered<T>(what: string, request: PromiseLike<T>): Promise<T> {
  return within(REQUEST_TIMEOUT_MS, request, () => {
    throw new BrokerTimeout(`RabbitMQ did not answer within ${REQUEST_TIMEOUT_MS} ms: ${what}`);
  });
}

/** Where the link reports its state. A Logger is one; subscribers of the client give their own. */
export interface LinkLog {
  info(facts: { broker: string }, message: string): void;
  warn(facts: LinkFailure, message: string): void;
  error(facts: LinkFailure, message: string): void;
}

export interface LinkFailure {
  err: Error;
  /** `host:port` of the node. */
  broker: string;
  /** What to change, where waiting does not help. */
  advice?: string;
  /** Failures in a row, whichever the node. */
  attempt: number;
  /** Until the next attempt; 0 where another node is tried first. */
  pauseMs: number;
}

export interface BrokerLink {
  readonly connected: boolean;
  /** Ends the current session after its `run` has returned. Idempotent. */
  stop(): Promise<void>;
}

/**
 * Opens sessions until stopped.
 * @param options.url one URL, or several of one cluster, separated by commas.
 * @param run works with one session, until its signal is aborted. When it returns or throws, the session is closed.
 */
export function keepBrokerLink(options: {
  url: string;
  service: string;
  log: LinkLog;
  run: (session: BrokerSession) => Promise<void>;
}): BrokerLink {
  const { service, log, run } = options;
  /** A node that fails moves to the end, so an unresponsive node is waited for once per round. */
  const urls = shuffledBrokerUrls(options.url);
  const stopping = new AbortController();
  let connected = false;

  const finished = (async () => {
    for (let attempt = 1; !stopping.signal.aborted; attempt += 1) {
      const [url] = urls;
      const broker = brokerOf(url);
      const openedAtMs = performance.now();
      let ended: Error;
      try {
        const connection = await connectTo(url, service);
        connected = true;
        log.info({ broker }, 'connected to RabbitMQ');
        ended = await runSession(connection, stopping.signal, run);
      } catch (error) {
        ended = error as Error;
      } finally {
        connected = false;
      }
      if (stopping.signal.aborted) return;
      if (performance.now() - openedAtMs > PAUSE_MAX_MS) attempt = 1;
      urls.push(urls.shift() as string);
      const isRoundOver = attempt % urls.length === 0;
      const pauseMs = isRoundOver ? jittered(backOffMs(attempt / urls.length, PAUSE_MIN_MS, PAUSE_MAX_MS)) : 0;
      const advice = brokerAdvice(url, ended);
      const failure = { err: ended, broker, attempt, pauseMs };
      if (advice) log.error({ ...failure, advice }, 'RabbitMQ refuses this service until this is fixed');
      else log.warn(failure, 'RabbitMQ session ended');
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

/**
 * amqplib writes this much at once. A page of the relay is a few hundred KB: with Node's 16 it
 * would be dozens of system calls.
 */
const WRITE_BYTES = 1024 * 1024;

/**
 * Connects to one of the nodes, tried in random order, each within a bounded time. The calling code
 * owns the connection.
 * @param list one URL, or several of one cluster, separated by commas.
 * @throws NoBroker if several nodes were tried, else the error of the only one.
 */
export async function connect(list: string, service: string): Promise<ChannelModel> {
  const urls = shuffledBrokerUrls(list);
  const failures: { url: string; error: unknown }[] = [];
  for (const url of urls) {
    try {
      return await connectTo(url, service);
    } catch (error) {
      failures.push({ url, error });
    }
  }
  throw urls.length === 1 ? failures[0]?.error : new NoBroker(failures);
}

async function connectTo(url: string, service: string): Promise<ChannelModel> {
  const target = new URL(url);
  if (!target.searchParams.has('heartbeat')) target.searchParams.set('heartbeat', String(HEARTBEAT_S));
  const tlsOptions = brokerTlsOptions(url);
  // amqplib's own timeout is for silence only: a peer that sends slowly would block us
  // indefinitely.
  const late = new AbortController();
  const socketOptions = {
    signal: late.signal, // for net.connect or tls.connect, which get all of these
    noDelay: true,
    keepAlive: true,
    writableHighWaterMark: WRITE_BYTES,
    clientProperties: { connection_name: `highload-balance ${service}` },
    ...tlsOptions,
  };
  const connecting = amqp.connect(target.href, socketOptions).then((connection) => {
    // Without a listener an error is an uncaught exception. Every error is followed by close, which is what we act on.
    connection.on('error', () => {});
    coalesceWrites(socketOf(connection));
    return connection;
  });
  return within(CONNECT_TIMEOUT_MS, connecting, () => {
    late.abort();
    throw new BrokerTimeout(`RabbitMQ did not accept the connection within ${CONNECT_TIMEOUT_MS} ms`);
  });
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

/** Not part of amqplib's public API, but there is no other access to it. */
function socketOf(connection: ChannelModel): Socket {
  return (connection.connection as unknown as { stream: Socket }).stream;
}

/**
 * Closes politely, or by force where the peer does not answer: amqplib's close can hang
 * indefinitely.
 */
export async function closeConnection(connection: ChannelModel): Promise<void> {
  await within(CLOSE_TIMEOUT_MS, connection.close(), () => {}).catch(() => {});
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
  connection.on('error', end); // emitted first, with the reason; the channels' own close events lack it
  connection.on('close', (error?: Error) => end(error ?? new Error('connection closed')));
  try {
    const running = run({ connection, signal: over.signal, end });
    await Promise.race([running, over.signal.aborted || once(over.signal, 'abort')]);
    // Work that hangs on an unanswered request only continues once its connection is closed, so the
    // wait is short.
    await within(RUN_OUT_MS, running, () => {});
  } catch (error) {
    end(error as Error); // ignored if something else came first: then this is only a consequence
  } finally {
    end(new Error('its work was done'));
    stopping.removeEventListener('abort', onStop);
    await closeConnection(connection);
  }
  return over.signal.reason;
}
