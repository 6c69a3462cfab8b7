// Reads a request body as strict JSON. What two parsers could read differently is refused: duplicate names (which of
// the two counts?), fractions and exponents (every number of ours is a whole one, and 0.9999999999999999999 must not
// silently become 1), bytes that are no UTF-8.
import type { IncomingMessage } from 'node:http';
import { RequestProblem } from './problems.ts';

/** An oversized body is read to its end up to this size, so that the client gets to read our answer. */
const DISCARD_BYTES_MAX = 4_194_304;
/** Slow clients may hold this much memory together; past it bodies that come in pieces are refused as overloaded. */
const UNFINISHED_BYTES_MAX = 67_108_864;
const ROOM_BYTES_MIN = 1024;
const NOTHING = Buffer.alloc(0);

/** A byte order mark stays in the text, where it is no JSON: the standard forbids to send one. */
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * @param bytesMax larger bodies are refused.
 * @throws RequestProblem payload_too_large, unsupported_media_type, invalid_request, or overloaded.
 */
export type ReadJsonBody = (request: IncomingMessage, bytesMax: number) => Promise<unknown>;

/** @param unfinishedBytesMax what all bodies together may take that have begun and not ended. */
export function createBodyReader(unfinishedBytesMax = UNFINISHED_BYTES_MAX): ReadJsonBody {
  let unfinishedBytes = 0;

  function readBytes(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      let body: Buffer = NOTHING;
      let length = 0;
      let isRefused = false;
      let counted = 0;
      const count = (bytes: number) => {
        unfinishedBytes += bytes - counted;
        counted = bytes;
      };
      const refuse = (problem: RequestProblem) => {
        isRefused = true;
        body = NOTHING;
        count(0);
        reject(problem);
      };
      const readBytesMax = Math.max(bytesMax, DISCARD_BYTES_MAX);
      const declared = Number(request.headers['content-length'] ?? 0);
      if (declared > readBytesMax) return refuse(tooLarge(request, bytesMax));
      request.on('data', (chunk: Buffer) => {
        if (isRefused) return;
        length += chunk.length;
        if (length > readBytesMax) return refuse(tooLarge(request, bytesMax));
        if (length > bytesMax) {
          body = NOTHING;
          return count(0);
        }
        body = length === chunk.length ? chunk : append(body, length - chunk.length, chunk, bytesMax);
        if (length === declared) return; // all of it: most bodies come in one piece, and are never counted
        count(body.length);
        if (unfinishedBytes > unfinishedBytesMax) refuse(new RequestProblem('overloaded'));
      });
      request.on('end', () => {
        count(0);
        if (length > bytesMax) reject(tooLarge(request, bytesMax));
        else resolve(body.subarray(0, length));
      });
      request.on('error', () => {
        count(0);
        reject(invalid('the body ended early'));
      });
    });
  }

  return async (request, bytesMax) => {
    const body = await readBytes(request, bytesMax);
    checkMediaType(request);
    return parse(body);
  };
}

/** Into one buffer that doubles: a list of pieces would take 300 bytes for each byte that comes alone. */
function append(body: Buffer, length: number, chunk: Buffer, bytesMax: number): Buffer {
  let room = body;
  if (room.length < length + chunk.length) {
    room = Buffer.allocUnsafe(Math.min(bytesMax, Math.max(ROOM_BYTES_MIN, 2 * (length + chunk.length))));
    body.copy(room, 0, 0, length);
  }
  chunk.copy(room, length);
  return room;
}

function tooLarge(request: IncomingMessage, bytesMax: number): RequestProblem {
  request.pause(); // no byte more; the answer closes the connection
  return new RequestProblem('payload_too_large', { detail: `Send at most ${bytesMax} bytes.` });
}

function checkMediaType(request: IncomingMessage): void {
  const type = request.headers['content-type'] ?? '';
  if (!/^application\/json *(; *charset="?utf-8"? *)?$/i.test(type)) {
    throw new RequestProblem('unsupported_media_type', { detail: 'Send the header Content-Type: application/json.' });
  }
  const encoding = request.headers['content-encoding'] ?? 'identity';
  if (encoding.toLowerCase() !== 'identity') {
    throw new RequestProblem('unsupported_media_type', { detail: 'Send the body without Content-Encoding.' });
  }
}

function parse(body: Buffer): unknown {
  if (body.length === 0) throw invalid('is empty: send a JSON object');
  let text: string;
  try {
    text = utf8.decode(body);
  } catch {
    throw invalid('is not valid UTF-8');
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalid(`is not valid JSON: ${error instanceof Error ? error.message : error}`);
  }
  checkNumbersAndNames(text, value);
  return value;
}

// In text that is valid JSON each match is a whole string; a colon behind it makes it a member name.
const STRINGS = /"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?/g;

function checkNumbersAndNames(text: string, value: unknown): void {
  let names = 0;
  const rest = text.replace(STRINGS, (_, colon) => {
    if (colon !== undefined) names += 1;
    return '""';
  });
  if (/\d[.eE]/.test(rest))
    throw invalid('holds a number with a fraction or an exponent: write whole numbers as digits only');
  if (names !== countNames(value)) throw invalid('holds an object with the same name twice');
}

/** A list instead of recursion: the value may be nested deeper than the call stack reaches. */
function countNames(value: unknown): number {
  let names = 0;
  const waiting = [value];
  while (waiting.length > 0) {
    const next = waiting.pop();
    if (typeof next !== 'object' || next === null) continue;
    // Not a name like others: what reads it into an object of any names would lose it.
    if (next !== value && Object.hasOwn(next, '__proto__')) throw invalid('holds the name __proto__');
    const members = Object.values(next);
    if (!Array.isArray(next)) names += members.length;
    for (const member of members) waiting.push(member);
  }
  return names;
}

function invalid(what: string): RequestProblem {
  return new RequestProblem('invalid_request', { errors: [{ where: 'body', what }] });
}
