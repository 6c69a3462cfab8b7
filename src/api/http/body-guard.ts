// Keeps request bodies from taking more of the event loop than they are worth.
//
// One that was answered without being read (a refusal, a GET with a body, a path that is open to
// all) Node would read to its end, at any length and at full speed. Here a short one is read, and
// the connection goes on; otherwise the answer says `Connection: close`, and the connection lingers
// for a moment.
//
// A body in chunks of a few bytes costs a callback for each chunk: a thousand times as much as in
// large chunks.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Lingering } from './lingering.ts';

/** As long as the body of any single operation. */
const SHORT_BYTES_MAX = 16_384;
/** After so many chunks, the average chunk has to have a plausible size. */
const CHUNKS_MAX = 2000;
const CHUNK_BYTES_MIN = 16;

/**
 * @param onSmallChunks ends a connection whose request cannot be read to its end.
 * @returns what is to be called with each request before it is answered.
 */
export function createBodyGuard(
  lingering: Lingering,
  onSmallChunks: (socket: Socket, response: ServerResponse) => void,
): (request: IncomingMessage, response: ServerResponse) => void {
  /** The body ends, and with it its connection, where its chunks are too small. */
  function watchChunks(request: IncomingMessage, response: ServerResponse): void {
    const { socket, push } = request;
    let [chunks, bytes, isOver] = [0, 0, false];
    request.push = (chunk: Buffer | null, encoding) => {
      if (isOver) return false;
      if (chunk) {
        chunks += 1;
        bytes += chunk.length;
        isOver = chunks > CHUNKS_MAX && bytes < chunks * CHUNK_BYTES_MIN;
      }
      if (!isOver) return Reflect.apply(push, request, [chunk, encoding]);
      // Not before the parser is through with what it has.
      process.nextTick(onSmallChunks, socket, response);
      return false;
    };
  }

  return (request, response) => {
    const { headers, socket } = request;
    const isChunked = headers['transfer-encoding'] !== undefined;
    // A client that expects to be asked for its body may send it or not.
    const isShort = Number(headers['content-length'] ?? 0) <= SHORT_BYTES_MAX && headers.expect === undefined;
    if (isShort && !isChunked) return;
    if (isChunked) watchChunks(request, response);
    const { writeHead } = response;
    response.writeHead = (...head: unknown[]) => {
      if (!request.complete) {
        response.setHeader('connection', 'close');
        lingering.afterAnswer(socket);
      }
      return Reflect.apply(writeHead, response, head);
    };
  };
}
