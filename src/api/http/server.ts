// Listens. Every wait for a client is bounded, and input that never becomes a request gets a
// problem document too.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { ANSWER_HEADERS, setAnswerHeaders } from '../../shared/answer-headers.ts';
import { DRAIN_MS_MAX } from '../../shared/config.ts';
import type { ProblemDetails } from '../../shared/contract.ts';
import type { Running } from '../../shared/lifecycle.ts';
import { type ProblemCode, problems } from '../../shared/problems.ts';
import { within } from '../../shared/within.ts';
import { createAdmission } from './admission.ts';
import { createBodyGuard } from './body-guard.ts';
import { createRequestId, noteAddress, REQUEST_ID, requestIdOf } from './caller.ts';
import type { Listener } from './express-messages.ts';
import { createLingering } from './lingering.ts';
import { listen } from './listeners.ts';
import { createPipelines } from './pipelines.ts';
import { problemDocument, sendProblem } from './problems.ts';
import { faultOf } from './request-head.ts';

/**
 * How long a client may take to send a request, for which Node looks every checkMs; and, without
 * reading anything of it, for its answer: unreadMs, or twice that, because Node lets the first
 * time-out pass where a part of a write went out. Longer than for a request, which gets a reason.
 */
const TIMEOUTS = { headersMs: 10_000, requestMs: 30_000, checkMs: 1000, unreadMs: 32_000 };
/** Above the usual 60 s of a load balancer, so that it is the one to close an idle connection. */
const KEEP_ALIVE_TIMEOUT_MS = 65_000;
const HEADER_BYTES_MAX = 16_384;
const TOLD_AT_ANY_LOAD: ReadonlySet<string> = new Set(['/livez', '/readyz', '/metrics']);
/** Beyond this rate, such requests are treated like all others. */
const TOLD_PER_SECOND = 100;
const CONNECTIONS_MAX = 20_000;
/** An update in a bulk request takes a sixth of the time of a single one. */
const BYTES_OF_COST = 512;
/** For a body of unknown length: counted as 1,000 updates. */
const CHUNKED_COST = 128;
/**
 * A stop first keeps listening and answers with `Connection: close`, so that clients disconnect by
 * themselves and no request meets a closed connection: until none has arrived for this time, at
 * least for `drainMsMin`, and at most for DRAIN_MS_MAX.
 */
const LEAVE_QUIET_MS = 250;
/**
 * A process that stood still for that long has yet to accept and to read what came meanwhile: in
 * these turns of its event loop, each of which accepts one connection of a listening socket.
 */
const LEAVE_TURNS = 10;
/** How long a connection that came last may take to ask something. */
const FIRST_REQUEST_MS = 2000;
/** How long a stop then waits for answers in flight. */
const DRAIN_TIMEOUT_MS = 12_000;

export interface HttpServer extends Running {
  port: number;
  /** Requests refused as overloaded before they were read, since the start. */
  refused(): number;
}

/** The estimated work of a request before its body is read, in units of one update. */
function costOf({ headers }: IncomingMessage): number {
  return headers['transfer-encoding'] === undefined
    ? 1 + Number(headers['content-length'] ?? 0) / BYTES_OF_COST
    : CHUNKED_COST;
}

/**
 * Requests of different kinds have separate shares: reads do not use up the share of updates, and
 * operators' changes use up neither.
 */
function kindOf({ method, url = '' }: IncomingMessage): 'read' | 'admin' | 'write' {
  if (method === 'GET' || method === 'HEAD') return 'read';
  return url.startsWith('/v1/accounts') && !url.includes('/holds') ? 'admin' : 'write';
}

/**
 * @param clientOf whose share a request takes from. It is asked while not all requests can be taken, so it has to be cheap.
 * @param drainMsMin how long a stop goes on listening although no request arrives.
 * @throws the listen error (EADDRINUSE, EACCES).
 */
export async function startServer(
  listener: Listener,
  host: string,
  port: number,
  given: Partial<typeof TIMEOUTS> = {},
  clientOf: (request: IncomingMessage) => string = () => '',
  drainMsMin = 0,
): Promise<HttpServer> {
  const timeouts = { ...TIMEOUTS, ...given };
  /** Connections that have not sent a request yet. */
  const unserved = new Set<Socket>();
  /** Connections with garbage after a request whose answer is still in flight. */
  const leaving = new WeakSet<Socket>();
  const admission = createAdmission();
  const mayTell = createAllowance(TOLD_PER_SECOND);
  let refused = 0;
  /** Since the stop began. */
  let lastRequestAtMs = 0;
  const lingering = createLingering();
  const guardBody = createBodyGuard(lingering, (socket, response) => {
    lingering.deafen(socket);
    if (!response.headersSent) endConnection(socket, 'invalid_request', SMALL_CHUNKS);
  });
  /** Answers input that is not a valid request. */
  const endConnection = (socket: Socket, code: ProblemCode, details?: ProblemDetails) => {
    // After a complete request: that one may be taking effect, so it gets its own answer and no
    // other.
    const complete = pipelines.underWay(socket).findLast(({ req, writableEnded }) => req.complete && !writableEnded);
    if (complete) {
      socket.pause(); // each further byte would be another error
      lingering.afterAnswer(socket);
      if (!complete.headersSent) complete.setHeader('connection', 'close');
      else if (!leaving.has(socket)) complete.once('finish', () => socket.destroySoon()); // a long answer goes on
      leaving.add(socket);
      return;
    }
    socket.write(rawProblem(code, details));
    lingering.end(socket);
  };
  const onRequest = (request: IncomingMessage, response: ServerResponse) => {
    if (pipelines.isOverfull(request.socket)) return;
    unserved.delete(request.socket);
    setAnswerHeaders(response);
    response.setHeader(REQUEST_ID, requestIdOf(request));
    guardBody(request, response);
    pipelines.take(request, response);
  };
  /** Called before anything is read, so it has to be cheap. */
  const refuse = (response: ServerResponse) => {
    refused += 1;
    sendProblem(response, 'overloaded');
  };
  const serve = (request: IncomingMessage, response: ServerResponse) => {
    if (stopping) {
      if (request.url !== '/readyz') lastRequestAtMs = performance.now(); // a load balancer keeps polling
      response.setHeader('connection', 'close');
    }
    const claim = { party: () => `${kindOf(request)} ${clientOf(request)}`, cost: () => costOf(request) };
    if (!admission.admits(claim) && !(TOLD_AT_ANY_LOAD.has(request.url ?? '') && mayTell())) return refuse(response);
    admission.taking(() => {
      const fault = faultOf(request);
      if (!fault) return listener(request, response);
      response.setHeader('connection', 'close');
      sendProblem(response, 'invalid_request', fault);
    });
  };
  const pipelines = createPipelines(lingering, serve, refuse);
  const server = createServer(
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: timeouts.headersMs,
      requestTimeout: timeouts.requestMs,
      connectionsCheckingInterval: timeouts.checkMs,
      requireHostHeader: false, // Node's own refusal has no problem document
      insecureHTTPParser: false, // whatever NODE_OPTIONS says
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      noDelay: true,
      ...listener.messages,
    },
    onRequest,
  );
  server.setTimeout(timeouts.unreadMs, (socket: Socket) => {
    const isWaitingForUs =
      pipelines.underWay(socket).some(({ writableEnded }) => !writableEnded) && !socket.writableLength;
    if (isWaitingForUs) socket.setTimeout(timeouts.unreadMs);
    else socket.destroy();
  });
  let stopping: Promise<void> | undefined;
  let connections = 0;
  server.on('connection', (socket: Socket) => {
    if (connections === CONNECTIONS_MAX) return socket.destroy();
    connections += 1;
    noteAddress(socket);
    unserved.add(socket);
    socket.on('close', () => {
      connections -= 1;
      unserved.delete(socket);
    });
  });
  server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
    // A client that waits for 100-continue is asked for its body only when it is read: a refused
    // request need not send it.
    request.once('resume', () => {
      if (!response.headersSent) response.writeContinue();
    });
    onRequest(request, response);
  });
  server.on('checkExpectation', onRequest); // an unknown Expect counts as none; Node's refusal has no problem document
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    if (error.code === 'ECONNRESET' || !socket.writable) return socket.destroy();
    const code: ProblemCode =
      error.code === 'HPE_HEADER_OVERFLOW'
        ? 'headers_too_large'
        : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
          ? 'request_timeout'
          : 'invalid_request';
    endConnection(socket, code);
  });
  const listeners = await listen(server, host, port);

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

  async function close(): Promise<void> {
    const startedAtMs = performance.now();
    const idle = setInterval(async () => {
      await catchUp();
      const areAllServed = unserved.size === 0 || performance.now() > startedAtMs + FIRST_REQUEST_MS;
      if (areAllServed) server.closeIdleConnections();
    }, LEAVE_QUIET_MS);
    const closed = listeners.close();
    await within(DRAIN_TIMEOUT_MS, closed, () => server.closeAllConnections());
    await closed;
    clearInterval(idle);
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

async function catchUp(): Promise<void> {
  for (let turns = 0; turns < LEAVE_TURNS; turns += 1) await turn();
}

/** @returns a function that returns true this often in a second. */
function createAllowance(perSecond: number): () => boolean {
  let times = 0;
  let sinceMs = 0;
  return () => {
    const nowMs = performance.now();
    if (nowMs - sinceMs >= 1000) {
      sinceMs = nowMs;
      times = 0;
    }
    times += 1;
    return times <= perSecond;
  };
}

const NO_HTTP: ProblemDetails = { detail: 'This is not a valid HTTP/1.1 request.' };
const SMALL_CHUNKS: ProblemDetails = {
  detail: 'Send the body in chunks of more than a few bytes, or with its Content-Length.',
};

function rawProblem(code: ProblemCode, details = code === 'invalid_request' ? NO_HTTP : {}): string {
  const body = JSON.stringify(problemDocument(code, details));
  return [
    `HTTP/1.1 ${problems[code].status} ${problems[code].title}`,
    ...Object.entries(ANSWER_HEADERS).map(([name, value]) => `${name}: ${value}`),
    `${REQUEST_ID}: ${createRequestId()}`,
    'content-type: application/problem+json',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close',
    '',
    body,
  ].join('\r\n');
}
