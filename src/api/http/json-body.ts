// Reads a request body as strict JSON. What two parsers could read differently is refused:
// duplicate names (which of the two counts?), fractions and exponents (every number is a whole one,
// and 0.9999999999999999999 must not silently become 1), bytes that are not UTF-8. What would take
// long to parse is refused before it is parsed.
import type { IncomingMessage } from 'node:http';
import { type Holding, Room } from '../shares/room.ts';
import { JsonScan, type Part } from './json-scan.ts';
import type { Pause, Pieces } from './pieces.ts';
import { RequestProblem } from './problems.ts';

/**
 * Bodies that have begun and not ended, and those that wait for their turn, may hold this much
 * memory together.
 */
const UNFINISHED_BYTES_MAX = 67_108_864;
const ROOM_BYTES_MIN = 1024;
const NOTHING = Buffer.alloc(0);

/**
 * A byte order mark stays in the text and makes it invalid JSON: the standard forbids sending one.
 */
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export interface BodyReader {
  /**
   * @param bytesMax larger bodies are refused.
   * @throws RequestProblem payload_too_large, unsupported_media_type, invalid_request, overloaded.
   */
  readJsonBody(request: IncomingMessage, bytesMax: number): Promise<unknown>;
  /**
   * Reads a body that is a long list, and gives it to `work` when its turn comes.
   * @param onBytes gets its length, before the body is read if the request states it.
   * @param inTurn gets its length, and a function to run when this body is next.
   */
  readListBody<Result>(
    request: IncomingMessage,
    bytesMax: number,
    onBytes: (bytes: number) => Promise<void>,
    inTurn: (bytes: number, read: () => Promise<Result>) => Promise<Result>,
    work: (body: ListBody, pause: Pause) => Promise<Result>,
  ): Promise<Result>;
}

export interface ListBody {
  /**
   * As it was sent, except that the objects and lists in its lists are not read yet: each is
   * replaced by a placeholder.
   */
  outline: unknown;
  /** An item of one of its lists. @throws RequestProblem invalid_request. */
  read(item: unknown): unknown;
}

/**
 * @param clientOf shares out the memory: when it is full, the client that holds the most has a body
 * refused as overloaded.
 * @param unfinishedBytesMax memory for all bodies together that have begun and not ended, or wait
 * for their turn.
 */
export function createBodyReader(
  pieces: Pieces,
  clientOf: (request: IncomingMessage) => string = () => '',
  unfinishedBytesMax = UNFINISHED_BYTES_MAX,
): BodyReader {
  const room = new Room(unfinishedBytesMax);

  /** @param scan looks through the body meanwhile. */
  function readBytes(request: IncomingMessage, bytesMax: number, scan: JsonScan): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      let body: Buffer = NOTHING;
      let length = 0;
      let isRefused = false;
      const refuse = (problem: RequestProblem) => {
        isRefused = true;
        body = NOTHING;
        unfinished.set(0);
        reject(problem);
      };
      const unfinished: Holding = room.holding(clientOf(request), () => refuse(new RequestProblem('overloaded')));
      const declared = declaredBytes(request);
      if (declared !== undefined) {
        const problem = declared > bytesMax ? tooLarge(bytesMax) : mediaTypeProblem(request);
        if (problem) return refuse(problem);
      }
      request.on('data', (chunk: Buffer) => {
        if (isRefused) return;
        length += chunk.length;
        if (length > bytesMax) return refuse(tooLarge(bytesMax));
        body = length === chunk.length ? chunk : append(body, length - chunk.length, chunk, bytesMax);
        scan.advance(body, length);
        if (scan.excess !== undefined) return refuse(mediaTypeProblem(request) ?? invalid(scan.excess));
        // Complete: most bodies arrive in one piece and are never counted.
        if (length === declared) return;
        unfinished.set(body.length);
      });
      request.on('end', () => {
        unfinished.set(0);
        const problem = mediaTypeProblem(request);
        if (problem) reject(problem);
        else resolve(body.subarray(0, length));
      });
      request.on('error', () => {
        unfinished.set(0);
        reject(invalid('the body ended early'));
      });
    });
  }

  return {
    async readJsonBody(request, bytesMax) {
      const scan = new JsonScan(false);
      return parse(await readBytes(request, bytesMax, scan), scan);
    },
    async readListBody(request, bytesMax, onBytes, inTurn, work) {
      const declared = declaredBytes(request);
      if (declared !== undefined) await onBytes(declared);
      const scan = new JsonScan(true);
      let body: Buffer | undefined = await readBytes(request, bytesMax, scan);
      const { length } = body;
      const waiting = room.holding(clientOf(request), () => {
        body = undefined;
      });
      try {
        waiting.set(body.buffer.byteLength); // a part of a buffer keeps all of it
        if (declared === undefined) await onBytes(length);
        return await inTurn(length, () =>
          pieces.run(async (pause) => {
            if (body === undefined) throw new RequestProblem('overloaded');
            return work(parseOutline(body, scan), pause);
          }),
        );
      } finally {
        waiting.set(0);
      }
    },
  };
}

function declaredBytes({ headers }: IncomingMessage): number | undefined {
  return headers['content-length'] === undefined ? undefined : Number(headers['content-length']);
}

/**
 * Appends to one buffer that doubles: a list of chunks would take 300 bytes for each byte that
 * comes alone.
 */
function append(body: Buffer, length: number, chunk: Buffer, bytesMax: number): Buffer {
  let room = body;
  if (room.length < length + chunk.length) {
    room = Buffer.allocUnsafe(Math.min(bytesMax, Math.max(ROOM_BYTES_MIN, 2 * (length + chunk.length))));
    body.copy(room, 0, 0, length);
  }
  chunk.copy(room, length);
  return room;
}

function tooLarge(bytesMax: number): RequestProblem {
  return new RequestProblem('payload_too_large', { detail: `Send at most ${bytesMax} bytes.` });
}

function mediaTypeProblem({ headers }: IncomingMessage): RequestProblem | undefined {
  if (!/^application\/json *(; *charset="?utf-8"? *)?$/i.test(headers['content-type'] ?? '')) {
    return new RequestProblem('unsupported_media_type', { detail: 'Send the header Content-Type: application/json.' });
  }
  const encoding = headers['content-encoding'];
  if (encoding === undefined || encoding.toLowerCase() === 'identity') return undefined;
  return new RequestProblem('unsupported_media_type', { detail: 'Send the body without Content-Encoding.' });
}

function parse(body: Buffer, scan: JsonScan): unknown {
  if (body.length === 0) throw invalid('is empty: send a JSON object');
  const value = parseText(textOf(body));
  checkForm(scan);
  checkNames(value, scan.names);
  return value;
}

/** Each item that is an object or a list is replaced by an object with its number. */
function parseOutline(body: Buffer, scan: JsonScan): ListBody {
  const { items, names } = scan;
  if (body.length === 0) throw invalid('is empty: send a JSON object');
  let end = 0;
  const between = items.map((item, index) => {
    const text = `${textOf(body.subarray(end, item.start))}{"":${index}}`;
    end = item.end;
    return text;
  });
  const outline = parseText(between.join('') + textOf(body.subarray(end)));
  checkForm(scan);
  checkNames(outline, names + items.length);
  return {
    outline,
    read(item) {
      if (typeof item !== 'object' || item === null) return item;
      const part = items[(item as { '': number })['']] as Part;
      const value = parseText(textOf(body.subarray(part.start, part.end)));
      checkNames(value, part.names);
      return value;
    },
  };
}

function textOf(bytes: Buffer): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw invalid('is not valid UTF-8');
  }
}

function parseText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw invalid(`is not valid JSON: ${error instanceof Error ? error.message : error}`);
  }
}

/** @param written how many names the text has. */
function checkNames(value: unknown, written: number): void {
  if (countNames(value, true) !== written) throw invalid('holds an object with the same name twice');
}

function countNames(value: unknown, isOutermost: boolean): number {
  if (typeof value !== 'object' || value === null) return 0;
  // Not an ordinary name: code that copies it into an object would lose it.
  if (!isOutermost && Object.hasOwn(value, '__proto__')) throw invalid('holds the name __proto__');
  const members = Object.values(value);
  let names = Array.isArray(value) ? 0 : members.length;
  for (const member of members) names += countNames(member, false);
  return names;
}

/** Refuses what is valid JSON and still not accepted. */
function checkForm({ hasFraction, hasEscapedName }: JsonScan): void {
  if (hasFraction) {
    throw invalid(
      'holds a number with a fraction or an exponent: write whole numbers as digits only, and amounts in minor units (9.99 as 999)',
    );
  }
  // JSON.parse of V8 13 and 14 may read such a name as another one, which an earlier body had in
  // its place: https://github.com/nodejs/node/issues/63785
  if (hasEscapedName) throw invalid('holds a name with an escape: write names without backslashes');
}

function invalid(what: string): RequestProblem {
  return new RequestProblem('invalid_request', { errors: [{ where: 'body', what }] });
}
