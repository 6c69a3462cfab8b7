// Turns the parts of a request into checked values, or into invalid_request with a list of what is wrong and where.
import type { IncomingMessage } from 'node:http';
import { z } from 'zod';
import type { InvalidInput } from '../../shared/contract.ts';
import { RequestProblem } from './problems.ts';

/** A body can hold thousands of mistakes; these are enough to mend them. */
const ERRORS_MAX = 20;

/** Checks one part of a request. @param where how to name a place in it, from the issue's path. */
export function check<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  where: (path: PropertyKey[]) => string = pointer,
): z.infer<Schema> {
  const result = schema.safeParse(value, { error: (issue) => (issue.input === undefined ? 'is required' : undefined) });
  if (result.success) return result.data;
  const errors = result.error.issues.flatMap((issue): InvalidInput[] =>
    issue.code === 'unrecognized_keys'
      ? issue.keys.map((key) => ({ where: where([...issue.path, key]), what: 'is not known here: leave it out' }))
      : [{ where: where(issue.path), what: issue.message }],
  );
  throw new RequestProblem('invalid_request', { errors: errors.slice(0, ERRORS_MAX) });
}

/** Place in the path or query, for {@link check}. */
export const inPath = (path: PropertyKey[]) => `path ${String(path[0] ?? '')}`.trim();
export const inQuery = (path: PropertyKey[]) => `query ${String(path[0] ?? '')}`.trim();

/** In a header, and in the body of a bulk request. */
export const idempotencyKey = z.string().regex(/^[\x20-\x7e]{1,255}$/, 'must be 1 to 255 printable ASCII characters');

/** The Idempotency-Key header, bare or as a quoted string of RFC 8941; null when there is none. */
export function idempotencyKeyOf(request: IncomingMessage): string | null {
  const raw = request.headers['idempotency-key'];
  if (raw === undefined) return null;
  if (request.headersDistinct['idempotency-key']?.length !== 1) throw invalidKey('is sent more than once');
  const key = unquote(String(raw));
  return check(idempotencyKey, key, () => 'header Idempotency-Key');
}

function unquote(value: string): string {
  if (!value.startsWith('"')) return value;
  if (!/^"(?:[^"\\]|\\["\\])*"$/.test(value)) throw invalidKey('is not a correctly quoted string');
  return value.slice(1, -1).replace(/\\(.)/g, '$1');
}

function invalidKey(what: string): RequestProblem {
  return new RequestProblem('invalid_request', { errors: [{ where: 'header Idempotency-Key', what }] });
}

/** The W3C trace context of the caller, or null. A malformed one counts as none, as the standard wants it. */
export function traceparentOf(request: IncomingMessage): string | null {
  const value = request.headers.traceparent;
  const known = typeof value === 'string' && /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/.test(value);
  return known ? value : null;
}

function pointer(path: PropertyKey[]): string {
  if (path.length === 0) return 'body';
  return path.map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
}
