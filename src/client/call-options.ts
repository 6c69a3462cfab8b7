// The last argument of every method.
import type { Names } from './arguments.ts';

export interface CallOptions {
  /**
   * Aborts the call. An update that was already sent is `outcome_unknown`: it may still be applied.
   */
  signal?: AbortSignal | undefined;
  /** Longest time for the call with all its attempts, 1 to 3,600,000 ms. */
  deadlineMs?: number | undefined;
}

/** For a call that changes something. */
export interface TracedCallOptions extends CallOptions {
  /** W3C trace context, which continues in the event: `00-<trace id>-<span id>-01`. */
  traceparent?: string | undefined;
}

export interface KeyedCallOptions extends TracedCallOptions {
  /** 1 to 255 printable ASCII characters; each call generates one unless given. */
  idempotencyKey?: string | undefined;
}

export const CALL_OPTIONS = { signal: true, deadlineMs: true } as const satisfies Names<CallOptions>;
export const TRACED_CALL_OPTIONS = { ...CALL_OPTIONS, traceparent: true } as const satisfies Names<TracedCallOptions>;
export const KEYED_CALL_OPTIONS = {
  ...TRACED_CALL_OPTIONS,
  idempotencyKey: true,
} as const satisfies Names<KeyedCallOptions>;
