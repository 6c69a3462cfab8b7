// One attempt: one HTTP request, and what its answer, or the lack of one, says about its effect.

import { BalanceError, errorOf, isProblemDocument } from './balance-error.ts';
import type { Outcome } from './persist.ts';
import { retryAfterMs } from './retry-pause.ts';
import type { Slots } from './slots.ts';

/** 1,000 entries or results with the longest texts have less than 9 MB. */
const ANSWER_BYTES_MAX = 16 * 1024 * 1024;

/** Temporary refusals. After these, or without an answer, another attempt is made. */
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
  traceparent?: string | undefined;
  /** JSON unless given. */
  accept?: string;
  /** A member that distinguishes the answer from one of a gateway. */
  answerHas: string;
}

export interface HttpAnswer<Body> {
  body: Body;
  replayed: boolean;
}

/** An answer whose body was not read. */
export interface Connection {
  response: Response;
  /** Its body may take longer than an attempt: neither that time nor the deadline ends it any more. */
  detach(): void;
  /** Drops what is left of the body. */
  abort(): void;
  /** Gives its place to the next request. To be called once. */
  close(): void;
}

/**
 * The type of a 200 body is given by the calling code; integration tests compare it with real ones.
 * @throws BalanceError `too_many_calls`, or `unauthorized` when there is no token: nothing was sent.
 */
export async function send<Body>(
  http: Http,
  request: HttpRequest,
  over: AbortSignal,
): Promise<Outcome<HttpAnswer<Body>>> {
  const opened = await open(http, request, over);
  if ('failed' in opened) return opened;
  try {
    return await readAnswer(http, opened.done, request);
  } finally {
    opened.done.close();
  }
}

/** Sends the request, and returns when the answer begins. @throws as send() does. */
export async function open(http: Http, request: HttpRequest, over: AbortSignal): Promise<Outcome<Connection>> {
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
  const detach = () => {
    clearTimeout(timer);
    over.removeEventListener('abort', onOver);
  };
  const close = () => {
    detach();
    setImmediate(giveBack); // when fetch has released the connection too, else the next request opens another
  };
  try {
    const response = await fetch(http.baseUrl + request.path, {
      method: request.method,
      headers,
      body: request.body ?? null,
      redirect: 'manual', // a token goes to this service only
      signal: attempt.signal,
    });
    return { done: { response, detach, abort: () => attempt.abort(), close } };
  } catch (cause) {
    close();
    return withoutAnswer(http, cause);
  }
}

/** The meaning of an answer that was read completely. */
export async function readAnswer<Body>(
  http: Http,
  { response }: Connection,
  request: HttpRequest,
): Promise<Outcome<HttpAnswer<Body>>> {
  try {
    return judge(response, await readBody(response), request);
  } catch (cause) {
    return withoutAnswer(http, cause);
  }
}

function headersOf({ token }: Http, request: HttpRequest): Record<string, string> {
  const { body, idempotencyKey, traceparent, accept = 'application/json' } = request;
  const headers: Record<string, string> = { accept };
  if (body !== undefined) headers['content-type'] = 'application/json';
  // Quoted, so that spaces at its ends and a leading quote are part of it.
  if (idempotencyKey !== undefined) headers['idempotency-key'] = `"${idempotencyKey.replace(/["\\]/g, '\\$&')}"`;
  if (traceparent !== undefined) headers.traceparent = traceparent;
  try {
    if (token) headers.authorization = `Bearer ${token()}`;
  } catch (cause) {
    throw new BalanceError('unauthorized', 'The token could not be obtained. Nothing was sent.', { cause });
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
    // Without Retry-After, waiting does not help: the request by itself exceeds the limit.
    const hopeless = body.code === 'rate_limited' && waitMs === undefined;
    return {
      failed: errorOf(body, request.idempotencyKey),
      again: PASSING.has(body.code) && !hopeless,
      retryAfterMs: waitMs,
      unsettled: body.code === 'outcome_unknown',
    };
  }
  // A gateway or another server answered. A gateway that lost the service answers 5xx.
  const unsettled = response.ok || status >= 500;
  return {
    failed: new BalanceError('unexpected_answer', `HTTP ${status} with a body that is not from highload-balance.`, {
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
