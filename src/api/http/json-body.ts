// Reads a request body as strict JSON. What two parsers could read differently is refused: duplicate names (which of
// the two counts?), fractions and exponents (every number of ours is a whole one, and 0.9999999999999999999 must not
// silently become 1), bytes that are no UTF-8.
import type { IncomingMessage } from 'node:http';
import { RequestProblem } from './problems.ts';

/** An oversized body is read to its end up to this size, so that the client gets to read our answer. */
const DISCARD_BYTES_MAX = 4_194_304;

/** A byte order mark stays in the text, where it is no JSON: the standard forbids to send one. */
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * @param bytesMax larger bodies are refused.
 * @throws RequestProblem payload_too_large, unsupported_media_type or invalid_request.
 */
export async function readJsonBody(request: IncomingMessage, bytesMax: number): Promise<unknown> {
  const body = await readBytes(request, bytesMax);
  checkMediaType(request);
  return parse(body);
}

function readBytes(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const readBytesMax = Math.max(bytesMax, DISCARD_BYTES_MAX);
    const declared = Number(request.headers['content-length'] ?? 0);
    if (declared > readBytesMax) return reject(tooLarge(request, bytesMax));
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length <= bytesMax) chunks.push(chunk);
      else if (length > readBytesMax) reject(tooLarge(request, bytesMax));
      else chunks.length = 0;
    });
    request.on('end', () => {
      if (length > bytesMax) reject(tooLarge(request, bytesMax));
      else resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks));
    });
    request.on('error', () => reject(invalid('the body ended early')));
  });
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
    const members = Object.values(next);
    if (!Array.isArray(next)) names += members.length;
    for (const member of members) waiting.push(member);
  }
  return names;
}

function invalid(what: string): RequestProblem {
  return new RequestProblem('invalid_request', { errors: [{ where: 'body', what }] });
}
