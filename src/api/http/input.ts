// Turns the parts of a request into checked values, or into invalid_request with a list of what is
// wrong and where.
import type { IncomingMessage } from 'node:http';
import { text } from '../../shared/balance.ts';
import type { InvalidInput } from '../../shared/contract.ts';
import type { z } from '../../shared/zod.ts';
import type { Pause } from './pieces.ts';
import { ERRORS_MAX, RequestProblem } from './problems.ts';

/** How to name a place, from the path of an issue. */
type Where = ((path: PropertyKey[]) => string) & {
  /** What its members are called: fields, unless it says otherwise. */
  readonly member?: string;
  /** What to say of members that clients look for here and that belong elsewhere. */
  readonly elsewhere?: ReadonlyMap<string, string>;
};

/** Checks one part of a request. */
export function check<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  where: Where = pointer,
): z.infer<Schema> {
  const found = examine(schema, value, where);
  if ('errors' in found) throw new RequestProblem('invalid_request', { errors: found.errors });
  return found.data;
}

/**
 * Checks items one by one, in pieces, and stops once enough mistakes are found.
 * @param name of their list in the body.
 */
export async function checkEach<Schema extends z.ZodType>(
  schema: Schema,
  items: readonly unknown[],
  read: (item: unknown) => unknown,
  name: string,
  pause: Pause,
): Promise<z.infer<Schema>[]> {
  const checked: z.infer<Schema>[] = [];
  const errors: InvalidInput[] = [];
  for (const [index, item] of items.entries()) {
    await pause();
    const found = examine(schema, read(item), (path) => pointer([name, index, ...path]));
    if (!('errors' in found)) checked.push(found.data);
    else if (errors.push(...found.errors) >= ERRORS_MAX) break;
  }
  if (errors.length > 0) throw new RequestProblem('invalid_request', { errors: errors.slice(0, ERRORS_MAX) });
  return checked;
}

function examine<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  where: Where,
): { data: z.infer<Schema> } | { errors: InvalidInput[] } {
  const result = schema.safeParse(value);
  return result.success ? { data: result.data } : { errors: errorsOf(result.error, where) };
}

/** The first ones. */
function errorsOf({ issues }: z.ZodError, where: Where): InvalidInput[] {
  const errors: InvalidInput[] = [];
  for (const issue of issues) {
    if (issue.code !== 'unrecognized_keys') errors.push({ where: where(issue.path), what: issue.message });
    else {
      for (const key of issue.keys) {
        errors.push({
          where: where([...issue.path, key]),
          what:
            where.elsewhere?.get(key) ?? `is not a known ${where.member ?? 'field'}: correct its name, or leave it out`,
        });
      }
    }
    if (errors.length >= ERRORS_MAX) break;
  }
  return errors.slice(0, ERRORS_MAX);
}

/** Place in the path or query, for {@link check}. */
export const inPath = (path: PropertyKey[]) => `path ${String(path[0] ?? '')}`.trim();
export const inQuery: Where = Object.assign((path: PropertyKey[]) => `query ${String(path[0] ?? '')}`.trim(), {
  member: 'parameter',
});

/** The body of a call whose idempotency key is in a header, for {@link check}. */
export const inKeyedBody: Where = Object.assign((path: PropertyKey[]) => pointer(path), {
  elsewhere: new Map([['idempotencyKey', 'is not a field of this body: send it in the header Idempotency-Key']]),
});

/** In a header, and in the body of a bulk request. */
export const idempotencyKey = text(255, /^[\x20-\x7e]+$/, 'must be 1 to 255 printable ASCII characters');

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

/**
 * The W3C trace context of the client, or null. A malformed one counts as none, as the standard
 * requires.
 */
export function traceparentOf(request: IncomingMessage): string | null {
  const value = request.headers.traceparent;
  const known = typeof value === 'string' && /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/.test(value);
  return known ? value : null;
}

function pointer(path: PropertyKey[]): string {
  if (path.length === 0) return 'body';
  return path.map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
}
