// Listens, and bounds every wait for a client.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { setAnswerHeaders } from '../../shared/answer-headers.ts';
import type { ProblemDetails } from '../../shared/contract.ts';
import type { Running } from '../../shared/lifecycle.ts';
import type { ProblemCode } from '../../shared/problems.ts';
import { createAdmission } from './admission.ts';
import { createBodyGuard } from './body-guard.ts';
import { noteAddress, REQUEST_ID, requestIdOf } from './caller.ts';
import type { Listener } from './express-messages.ts';
import { createLeaving } from './leaving.ts';
import { createLingering } from './lingering.ts';
import { listen } from './listeners.ts';
import { createPipelines } from './pipelines.ts';
import { sendProblem } from './problems.ts';
import { faultOf } from './request-head.ts';
import { createUnparsed } from './unparsed.ts';

/**
 * How long a client may take to send a request; Node checks every checkMs. unreadMs is how long it
 * may go without reading any of its answer. That can double, because Node lets the first time-out
 * pass if part of a write went out. unreadMs exceeds requestMs, so that a slow request gets its
 * answer, which says why.
 */
const TIMEOUTS = { headersMs: 10_000, requestMs: 30_000, checkMs: 1000, unreadMs: 32_000 };
/** Above the usual 60 s of a load balancer, so that it is the one to close an idle connection. */
const KEEP_ALIVE_TIMEOUT_MS = 65_000;
const HEADER_BYTES_MAX = 16_384;
const TOLD_AT_ANY_LOAD: ReadonlySet<string> = new Set(['/livez', '/readyz', '/metrics']);
/** Beyond this rate, such requests are treated like all others. */
const TOLD_PER_SECOND = 100;
const CONNECTIONS_MAX = 20_000;
/**
 * Bytes of a body that cost as much as one single update: bulk updates cost a sixth of one each.
 */
const BYTES_OF_COST = 512;
/** For a body of unknown length: as much as a bulk request of about 1,000 updates. */
const CHUNKED_COST = 128;
const SMALL_CHUNKS: ProblemDetails = {
  detail: 'Send the body in chunks of more than a few bytes, or with its Content-Length.',
};

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
 * @param clientOf returns the client whose share a request uses. It is called while the server is
 * overloaded, so it has to be cheap.
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
  const admission = createAdmission();
  const mayTell = createAllowance(TOLD_PER_SECOND);
  let refused = 0;
  const lingering = createLingering();
  const guardBody = createBodyGuard(lingering, (socket, response) => {
    lingering.deafen(socket);
    if (!response.headersSent) unparsed.answer(socket, 'invalid_request', SMALL_CHUNKS);
  });
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
    if (leaving.began()) {
      if (request.url !== '/readyz') leaving.noteRequest(); // a load balancer keeps polling
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
  const unparsed = createUnparsed(lingering, pipelines);
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
  const leaving = createLeaving(server, () => unserved.size === 0, drainMsMin);
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
    // A client that waits for 100-continue is asked for its body only when the service reads the
    // body: a client that is refused need not send one.
    request.once('resume', () => {
      if (!response.headersSent) response.writeContinue();
    });
    onRequest(request, response);
  });
  // An unknown Expect counts as none; Node's refusal has no problem document.
  server.on('checkExpectation', onRequest);
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    if (error.code === 'ECONNRESET' || !socket.writable) return socket.destroy();
    const code: ProblemCode =
      error.code === 'HPE_HEADER_OVERFLOW'
        ? 'headers_too_large'
        : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
          ? 'request_timeout'
          : 'invalid_request';
    unparsed.answer(socket, code);
  });
  const listeners = await listen(server, host, port);

  return {
    port: listeners.port,
    refused: () => refused,
    stop: () => leaving.stop(listeners),
  };
}

/** @returns a function that returns true at most this many times a second. */
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
