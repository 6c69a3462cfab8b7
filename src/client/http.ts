// One attempt: one request over HTTP, and what its answer, or the lack of one, says about its effect.
import { retryAfterMs } from './back-off.ts';
import { BalanceError, errorOf, isProblemDocument } from './balance-error.ts';
import type { Outcome } from './persist.ts';
import type { Slots } from './slots.ts';

/** 1,000 entries or results with the longest texts have less than 9 MB. */
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;

/** Refusals that pass. With these and an answer that never came, an attempt is made again. */
const PASSING: ReadonlySet<string> = new Set([
  'request_timeout',
  'rate_limited',
  'overloaded',
  'unavailable',
  'outcome_unknown',
]);

export interface Http {
  /** Of the service, without a slash at the end. */
  baseUrl: string;
  token: (() => string) | undefined;
  slots: Slots;
  attemptTimeoutMs: number;
}

export interface HttpRequest {
  method: 'GET' | 'POST' | 'PATCH';
  path: string;
  /** JSON. */
  body?: string;
  idempotencyKey?: string;
  /** A member of the answer by which it is known from what a gateway may say. */
  answerHas: string;
}

export interface HttpAnswer<Body> {
  body: Body;
  replayed: boolean;
}

/**
 * The caller says what the body of a 200 is, which integration tests compare with real ones.
 * @throws BalanceError `too_many_calls`, or `unauthorized` when there is no token: nothing was sent.
 */
export async function send<Body>(
  http: Http,
  request: HttpRequest,
  over: AbortSignal,
): Promise<Outcome<HttpAnswer<Body>>> {
  const headers = headersOf(http, request);
  let giveBack: () => void;
  try {
    giveBack = await http.slots.take(over);
  } catch (cause) {
    if (cause instanceof BalanceError) throw cause;
    return failure('All connections of this client were busy until the deadline.', {
      cause,
      again: true,
      unsettled: false,
    });
  }
  const attempt = new AbortController();
  const onOver = () => attempt.abort(over.reason);
  over.addEventListener('abort', onOver);
  const timeout = new Error(`it took longer than ${http.attemptTimeoutMs} ms`);
  const timer = setTimeout(() => attempt.abort(timeout), http.attemptTimeoutMs);
  try {
    const response = await fetch(http.baseUrl + request.path, {
      method: request.method,
      headers,
      body: request.body ?? null,
      redirect: 'manual', // a token goes to this service only
      signal: attempt.signal,
    });
    return judge<Body>(response, await readBody(response), request);
  } catch (cause) {
    return withoutAnswer(http, cause);
  } finally {
    clearTimeout(timer);
    over.removeEventListener('abort', onOver);
    setImmediate(giveBack); // when fetch has let go of the connection too, else the next request opens another
  }
}

function headersOf({ token }: Http, { body, idempotencyKey }: HttpRequest): Record<string, string> {
  const headers: Record<string, string> = { accept: 'application/json' };
  if (body !== undefined) headers['content-type'] = 'application/json';
  // Quoted, so that spaces at its ends and a leading quote are part of it.
  if (idempotencyKey !== undefined) headers['idempotency-key'] = `"${idempotencyKey.replace(/["\\]/g, '\\$&')}"`;
  try {
    if (token) headers.authorization = `Bearer ${token()}`;
  } catch (cause) {
    throw new BalanceError('unauthorized', 'The token could not be had. Nothing was sent.', { cause });
  }
  return headers;
}

async function readBody(response: Response): Promise<unknown> {
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES_MAX) return undefined; // leaving the loop cancels the rest
    text += decoder.decode(chunk, { stream: true });
  }
  text += decoder.decode();
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function judge<Body>(response: Response, body: unknown, request: HttpRequest): Outcome<HttpAnswer<Body>> {
  const { status, headers } = response;
  if (response.ok && typeof body === 'object' && body !== null && request.answerHas in body) {
    return { done: { body: body as Body, replayed: headers.get('idempotent-replayed') === 'true' } };
  }
  const waitMs = retryAfterMs(headers.get('retry-after'), Date.now());
  if (isProblemDocument(body)) {
    // Without Retry-After no wait helps: the request alone is more than the limit.
    const hopeless = body.code === 'rate_limited' && waitMs === undefined;
    return {
      failed: errorOf(body, request.idempotencyKey),
      again: PASSING.has(body.code) && !hopeless,
      retryAfterMs: waitMs,
      unsettled: body.code === 'outcome_unknown',
    };
  }
  // A gateway, or whatever else answers there. One that lost the service says 5xx.
  const unsettled = response.ok || status >= 500;
  return {
    failed: new BalanceError('unexpected_answer', `HTTP ${status} with a body that is not of highload-balance.`, {
      status,
    }),
    again: unsettled || status === 429,
    retryAfterMs: waitMs,
    unsettled,
  };
}

/** fetch rejects with a TypeError whose cause is the error of the socket. */
function withoutAnswer({ baseUrl }: Http, error: unknown): Outcome<never> {
  const { code = '', syscall, errors } = causeOf(error);
  const isTls = /^(ERR_TLS_|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_)/.test(code);
  const isUnsent =
    isTls ||
    code === 'UND_ERR_CONNECT_TIMEOUT' ||
    /^(connect|getaddrinfo)$/.test((errors?.[0] ?? { syscall }).syscall ?? '');
  const reason = code || causeOf(error).message;
  return failure(`No answer from ${baseUrl}: ${reason}.`, { cause: error, again: !isTls, unsettled: !isUnsent });
}

interface SocketFailure extends Error {
  code?: string;
  syscall?: string;
  /** A name with several addresses: one for each. */
  errors?: SocketFailure[];
}

function causeOf(error: unknown): SocketFailure {
  return ((error as Error).cause ?? error) as SocketFailure;
}

function failure(message: string, { cause, ...rest }: { cause: unknown; again: boolean; unsettled: boolean }) {
  return { failed: new BalanceError('unreachable', message, { cause }), ...rest };
}
