// The ways in which a client sends: each retries its request until there is an answer, and none
// applies an effect twice.
import { randomUUID } from 'node:crypto';
import { whole } from './arguments.ts';
import { type AtomicRequest, sendAtomically } from './atomic.ts';
import type { CallOptions, KeyedCallOptions, TracedCallOptions } from './call-options.ts';
import { type Http, type HttpAnswer, type HttpRequest, send } from './http.ts';
import { type Applied, type BulkPart, type BulkRequest, type BulkResult, sendBulkOnce, sendOnce } from './once.ts';
import { type Outcome, persist } from './persist.ts';

/** Below the time for which the service keeps idempotency keys, 24 hours unless its operator set less. */
export const DEADLINE_MS_MAX = 3_600_000;

export class Sender {
  readonly #http: Http;
  readonly #deadlineMs: number;

  /** @param deadlineMs of calls that have none of their own. */
  constructor(http: Http, deadlineMs: number) {
    this.#http = http;
    this.#deadlineMs = deadlineMs;
  }

  /** For calls whose retry has no further effect. */
  async repeatable<Answer>(request: HttpRequest, options: TracedCallOptions): Promise<Answer> {
    const traced = { ...request, traceparent: traceparentIn(options) };
    const attempt = (over: AbortSignal) => send<Answer>(this.#http, traced, over);
    return (await persist(this.#deadlineOf(options), options.signal, attempt)).body;
  }

  /**
   * For calls that take effect once by themselves, like a hold by its id, but whose outcome may be
   * unknown.
   */
  async once<Answer>(
    request: HttpRequest,
    options: TracedCallOptions,
    accountId?: string,
  ): Promise<HttpAnswer<Answer>> {
    const traced = { ...request, traceparent: traceparentIn(options) };
    return sendOnce<Answer>(this.#http, traced, accountId, this.#deadlineOf(options), options.signal);
  }

  /** With the key of the call, or a generated one. */
  async keyed<Answer>(request: HttpRequest, options: KeyedCallOptions, accountId?: string): Promise<Applied<Answer>> {
    const { idempotencyKey = randomUUID() } = options;
    const { body, replayed } = await this.once<Answer>({ ...request, idempotencyKey }, options, accountId);
    return { ...body, idempotencyKey, replayed };
  }

  /** Independent parts. */
  async bulk<Answer>(
    request: BulkRequest,
    parts: readonly BulkPart[],
    options: TracedCallOptions,
  ): Promise<BulkResult<Answer>[]> {
    const traced = { ...request, traceparent: traceparentIn(options) };
    return sendBulkOnce<Answer>(this.#http, traced, parts, this.#deadlineOf(options), options.signal);
  }

  /** Updates that take effect together or not at all. */
  async atomic(updates: AtomicRequest['updates'], options: KeyedCallOptions) {
    const { idempotencyKey = randomUUID(), signal } = options;
    const request = { updates, idempotencyKey, traceparent: traceparentIn(options) };
    return sendAtomically(this.#http, request, this.#deadlineOf(options), signal);
  }

  /**
   * Answers that are not JSON: like repeatable() until the answer begins. @param begin makes one
   * attempt.
   */
  async download<Answer>(
    begin: (http: Http, over: AbortSignal) => Promise<Outcome<Answer>>,
    options: CallOptions,
  ): Promise<Answer> {
    return persist(this.#deadlineOf(options), options.signal, (over) => begin(this.#http, over));
  }

  #deadlineOf({ deadlineMs = this.#deadlineMs }: CallOptions): number {
    return whole('deadlineMs', deadlineMs, DEADLINE_MS_MAX);
  }
}

/**
 * A malformed one is sent and ignored by the service, as the standard requires; one that a header
 * cannot carry is refused.
 */
function traceparentIn({ traceparent }: TracedCallOptions): string | undefined {
  if (traceparent === undefined || (typeof traceparent === 'string' && /^[\x21-\x7e]+$/.test(traceparent)))
    return traceparent;
  throw new TypeError('traceparent must be printable ASCII without spaces');
}
