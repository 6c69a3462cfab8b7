// Traces for OpenTelemetry, when the settings ask for them; otherwise none of it is even loaded.
// Between the steps of a change a span is known by its W3C traceparent, because that is what the
// outbox and the messages carry.
//
// Only what a sampled request started is traced. Work that serves many requests at once is one
// span: a child of the first that is sampled, with links to the others.
import { isTracing, type TracingSettings } from './config.ts';
import type { Running } from './lifecycle.ts';
import type { Logger } from './logging.ts';

export type Attributes = Record<string, string | number>;
export type SpanKind = 'client' | 'producer' | 'consumer';

export interface TracedSpan {
  readonly traceparent: string;
  rename(name: string): void;
  set(attributes: Attributes): void;
  /** Marks the span as failed. @param errorType few different ones, as they are grouped by it */
  fail(errorType: string): void;
  end(): void;
}

export interface Tracing extends Running {
  /**
   * The span of a request, a child of the client's span if there is one; undefined when it is not
   * sampled.
   */
  startRequest(name: string, parent: string | null, attributes: Attributes): TracedSpan | undefined;
  /** Undefined if none of the contexts is sampled. */
  startSpan(
    kind: SpanKind,
    name: string,
    contexts: Iterable<string | null>,
    attributes: Attributes,
  ): TracedSpan | undefined;
  /** Sends what is left, for a bounded time. */
  stop(): Promise<void>;
}

/** @returns undefined when tracing is off. */
export async function startTracing(
  settings: TracingSettings,
  service: string,
  log: Logger,
): Promise<Tracing | undefined> {
  if (!isTracing(settings)) return undefined;
  const { createTracing } = await import('./tracing-sdk.ts');
  const tracing = createTracing(settings, service, log);
  log.info('tracing is on');
  return tracing;
}

/** Ends the span with the work, as failed when that throws. */
export async function inSpan<Result>(span: TracedSpan | undefined, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    span?.fail((error as { code?: string }).code ?? 'unknown');
    throw error;
  } finally {
    span?.end();
  }
}
