// Listens. Every wait on a client is bounded, and what never becomes a request gets a problem document too.
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Running } from '../../shared/lifecycle.ts';
import { type ProblemCode, problems } from '../../shared/problems.ts';
import { createAdmission } from './admission.ts';
import { listen } from './listeners.ts';
import { problemDocument, sendProblem } from './problems.ts';

/**
 * How long a client may take to send a request, for which Node looks every checkMs; and, without reading anything of it,
 * for its answer: unreadMs, or twice that, because Node lets the first time-out pass where a part of a write went out. More than
 * for a request, which is told its reason.
 */
const TIMEOUTS = { headersMs: 10_000, requestMs: 30_000, checkMs: 1000, unreadMs: 32_000 };
/** Above the usual 60 s of a load balancer, so that it is the one to close an idle connection. */
const KEEP_ALIVE_TIMEOUT_MS = 65_000;
const HEADER_BYTES_MAX = 16_384;
const TOLD_AT_ANY_LOAD: ReadonlySet<string> = new Set(['/livez', '/readyz', '/metrics']);
const CONNECTIONS_MAX = 20_000;
/** Requests that one connection may have under way or waiting. */
const PIPELINED_MAX = 100;
/**
 * A stop first goes on listening and answers with `Connection: close`, so that clients leave by themselves instead of having their
 * next request meet a closed connection: until none has come for a while, and no longer than the other.
 */
const LEAVE_QUIET_MS = 250;
const LEAVE_MS_MAX = 8000;
/** How long a connection that came last may take to ask something. */
const FIRST_REQUEST_MS = 2000;
/** How long a stop then waits for answers under way. */
const DRAIN_TIMEOUT_MS = 12_000;

export interface HttpServer extends Running {
  port: number;
  /** Requests refused as overloaded before they were read, since the start. */
  refused(): number;
}

/** @throws the listen error (EADDRINUSE, EACCES). */
export async function startServer(
  listener: RequestListener,
  host: string,
  port: number,
  given: Partial<typeof TIMEOUTS> = {},
): Promise<HttpServer> {
  const timeouts = { ...TIMEOUTS, ...given };
  /** By connection, oldest first; finished ones are dropped when the next request arrives. */
  const underWay = new WeakMap<Socket, ServerResponse[]>();
  /** Connections that have not sent a request yet. */
  const unserved = new Set<Socket>();
  /** Connections with rubbish behind a request whose answer goes on. */
  const leaving = new WeakSet<Socket>();
  const admit = createAdmission();
  let refused = 0;
  /** Since the stop began. */
  let lastRequestAtMs = 0;
  const onRequest = (request: IncomingMessage, response: ServerResponse) => {
    const earlier = underWay.get(request.socket);
    if (earlier === undefined) {
      unserved.delete(request.socket);
      underWay.set(request.socket, [response]);
    } else if (earlier.length === 1 && earlier[0]?.writableFinished) earlier[0] = response;
    else return waitInLine(earlier, request, response);
    serve(request, response);
  };
  /** One after the other on each connection, so that answers that the client does not read hold up its next request. */
  const waitInLine = (earlier: ServerResponse[], request: IncomingMessage, response: ServerResponse) => {
    const line = earlier.filter((one) => !one.writableFinished);
    underWay.set(request.socket, [...line, response]);
    if (line.length >= PIPELINED_MAX) return refuse(response);
    const previous = line.at(-1);
    if (!previous) return serve(request, response);
    previous.once('close', () => {
      if (!request.socket.destroyed) serve(request, response);
    });
  };
  /** Before anything is read or looked at: it has to be cheap. */
  const refuse = (response: ServerResponse) => {
    refused += 1;
    sendProblem(response, 'overloaded');
  };
  const serve = (request: IncomingMessage, response: ServerResponse) => {
    if (stopping) {
      if (request.url !== '/readyz') lastRequestAtMs = performance.now(); // a load balancer goes on asking
      response.setHeader('connection', 'close');
    }
    if (!admit() && !TOLD_AT_ANY_LOAD.has(request.url ?? '')) return refuse(response);
    if (request.headers.host === undefined && request.httpVersion === '1.1') {
      response.setHeader('connection', 'close');
      sendProblem(response, 'invalid_request', { errors: [{ where: 'header Host', what: 'is required' }] });
      return;
    }
    listener(request, response);
  };
  const server = createServer(
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: timeouts.headersMs,
      requestTimeout: timeouts.requestMs,
      connectionsCheckingInterval: timeouts.checkMs,
      requireHostHeader: false, // Node's own refusal has no problem document
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      noDelay: true,
    },
    onRequest,
  );
  server.setTimeout(timeouts.unreadMs, (socket: Socket) => {
    const isWaitingForUs = underWay.get(socket)?.some(({ writableEnded }) => !writableEnded) && !socket.writableLength;
    if (isWaitingForUs) socket.setTimeout(timeouts.unreadMs);
    else socket.destroy();
  });
  let stopping: Promise<void> | undefined;
  let connections = 0;
  server.on('connection', (socket: Socket) => {
    if (connections === CONNECTIONS_MAX) return socket.destroy();
    connections += 1;
    unserved.add(socket);
    socket.once('close', () => {
      connections -= 1;
      unserved.delete(socket);
    });
  });
  server.on('checkExpectation', onRequest); // an unknown Expect counts as none; Node's refusal has no problem document
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    if (error.code === 'ECONNRESET' || !socket.writable) return socket.destroy();
    // Rubbish behind a complete request: that one may be taking effect, so it gets its own answer and no other.
    const complete = underWay.get(socket)?.findLast(({ req, writableEnded }) => req.complete && !writableEnded);
    if (complete) {
      socket.pause(); // each further byte would be another error
      if (!complete.headersSent) complete.setHeader('connection', 'close');
      else if (!leaving.has(socket)) complete.once('finish', () => socket.destroySoon()); // a long answer goes on to its end
      leaving.add(socket);
      return;
    }
    const code: ProblemCode =
      error.code === 'HPE_HEADER_OVERFLOW'
        ? 'headers_too_large'
        : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
          ? 'request_timeout'
          : 'invalid_request';
    socket.end(rawProblem(code));
  });
  const listeners = await listen(server, host, port);

  async function letLeave(): Promise<void> {
    const startedAtMs = performance.now();
    lastRequestAtMs = startedAtMs;
    for (let nowMs = startedAtMs; nowMs < startedAtMs + LEAVE_MS_MAX; nowMs = performance.now()) {
      if (nowMs >= lastRequestAtMs + LEAVE_QUIET_MS) return;
      await delay(lastRequestAtMs + LEAVE_QUIET_MS - nowMs);
    }
  }

  async function close(): Promise<void> {
    const startedAtMs = performance.now();
    const idle = setInterval(() => {
      const areAllServed = unserved.size === 0 || performance.now() > startedAtMs + FIRST_REQUEST_MS;
      if (areAllServed) server.closeIdleConnections();
    }, LEAVE_QUIET_MS);
    const force = setTimeout(() => server.closeAllConnections(), DRAIN_TIMEOUT_MS);
    await listeners.close();
    clearInterval(idle);
    clearTimeout(force);
    server.close(); // ends its timers
  }

  return {
    port: listeners.port,
    refused: () => refused,
    stop() {
      stopping ??= letLeave().then(close);
      return stopping;
    },
  };
}

function rawProblem(code: ProblemCode): string {
  const detail = code === 'invalid_request' ? { detail: 'This is not a correct HTTP/1.1 request.' } : {};
  const body = JSON.stringify(problemDocument(code, detail));
  return [
    `HTTP/1.1 ${problems[code].status} ${problems[code].title}`,
    'content-type: application/problem+json',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
    '',
    body,
  ].join('\r\n');
}
