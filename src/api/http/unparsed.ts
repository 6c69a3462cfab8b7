// Answers input that never becomes a request: with a problem document, like everything else.
import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { ANSWER_HEADERS } from '../../shared/answer-headers.ts';
import type { ProblemDetails } from '../../shared/contract.ts';
import { type ProblemCode, problems } from '../../shared/problems.ts';
import { createRequestId, REQUEST_ID } from './caller.ts';
import type { Lingering } from './lingering.ts';
import type { Pipelines } from './pipelines.ts';
import { problemDocument } from './problems.ts';

const NO_HTTP: ProblemDetails = { detail: 'This is not a valid HTTP/1.1 request.' };

export interface Unparsed {
  /** Sends the problem and ends the connection. */
  answer(socket: Socket, code: ProblemCode, details?: ProblemDetails): void;
}

export function createUnparsed(lingering: Lingering, pipelines: Pipelines): Unparsed {
  /** Connections with garbage after a request whose answer is still in flight. */
  const ending = new WeakSet<Socket>();

  /**
   * For garbage after a complete request. That request may be taking effect, so the connection
   * carries its answer and no other.
   */
  function endAfter(complete: ServerResponse, socket: Socket): void {
    socket.pause(); // each further byte would be another error
    lingering.afterAnswer(socket);
    if (!complete.headersSent) complete.setHeader('connection', 'close');
    // A long answer goes on.
    else if (!ending.has(socket)) complete.once('finish', () => socket.destroySoon());
    ending.add(socket);
  }

  return {
    answer(socket, code, details) {
      const complete = pipelines.underWay(socket).findLast(({ req, writableEnded }) => req.complete && !writableEnded);
      if (complete) return endAfter(complete, socket);
      socket.write(rawProblem(code, details));
      lingering.end(socket);
    },
  };
}

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
