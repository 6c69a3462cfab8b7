// Listens. Every wait on a client is bounded, and what never becomes a request gets a problem document too.
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Running } from '../shared/lifecycle.ts';
import { type ProblemCode, problemDocument, problems } from './problems.ts';

const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
/** Above the usual 60 s of a load balancer, so that it is the one to close an idle connection. */
const KEEP_ALIVE_TIMEOUT_MS = 65_000;
const HEADER_BYTES_MAX = 16_384;
const CONNECTIONS_MAX = 20_000;
/** How long a stop waits for answers under way. */
const DRAIN_TIMEOUT_MS = 15_000;
/** Connections that were busy when a stop began are closed once they are idle. */
const IDLE_CHECK_MS = 100;

export interface HttpServer extends Running {
  port: number;
}

/** @throws the listen error (EADDRINUSE, EACCES). */
export async function startServer(listener: RequestListener, host: string, port: number): Promise<HttpServer> {
  const server = createServer(
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
      noDelay: true,
    },
    (request, response) => {
      if (stopping) response.setHeader('connection', 'close');
      listener(request, response);
    },
  );
  let stopping: Promise<void> | undefined;
  server.maxConnections = CONNECTIONS_MAX;
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    if (error.code === 'ECONNRESET' || !socket.writable) return socket.destroy();
    const code: ProblemCode =
      error.code === 'HPE_HEADER_OVERFLOW'
        ? 'headers_too_large'
        : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
          ? 'request_timeout'
          : 'invalid_request';
    socket.end(rawProblem(code));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve();
    });
  });

  return {
    port: (server.address() as AddressInfo).port,
    stop() {
      stopping ??= new Promise((resolve) => {
        const idle = setInterval(() => server.closeIdleConnections(), IDLE_CHECK_MS);
        const force = setTimeout(() => server.closeAllConnections(), DRAIN_TIMEOUT_MS);
        server.close(() => {
          clearInterval(idle);
          clearTimeout(force);
          resolve();
        });
      });
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
