// Traces by the OpenTelemetry SDK. Loaded only when tracing is on. If the collector is down, only
// spans are lost: the queue is bounded, sending has a time limit, and one line a minute says so.
import { type Context, ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, TraceFlags, trace } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import {
  defaultResource,
  detectResources,
  envDetector,
  resourceFromAttributes,
  serviceInstanceIdDetector,
} from '@opentelemetry/resources';
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type Sampler,
  type SpanExporter,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import type { TracingSettings } from './config.ts';
import type { Logger } from './logging.ts';
import type { TracedSpan, Tracing } from './tracing.ts';
import { within } from './within.ts';

/** Spans that wait to be sent; past it new ones are dropped. */
const QUEUE_SPANS_MAX = 4096;
const SEND_SPANS_MAX = 512;
const SEND_EVERY_MS = 1000;
const SEND_TIMEOUT_MS = 10_000;
/** A stop has 25 s for everything, and spans are the least of it. */
const STOP_TIMEOUT_MS = 2000;
const FAILURE_LOG_EVERY_MS = 60_000;

const KINDS = { client: SpanKind.CLIENT, producer: SpanKind.PRODUCER, consumer: SpanKind.CONSUMER };

export function createTracing(settings: TracingSettings, service: string, log: Logger): Tracing {
  const provider = new TracerProvider({
    sampler: samplerOf(settings),
    resource: defaultResource()
      .merge(resourceFromAttributes({ 'service.name': `highload-balance-${service}` }))
      .merge(detectResources({ detectors: [serviceInstanceIdDetector, envDetector] })), // OTEL_* overrides it
    spanProcessors: [
      new BatchSpanProcessor({
        exporter: reportingFailures(new OTLPTraceExporter(addressOf(settings)), log),
        maxQueueSize: QUEUE_SPANS_MAX,
        maxExportBatchSize: SEND_SPANS_MAX,
        scheduledDelayMillis: SEND_EVERY_MS,
        exportTimeoutMillis: SEND_TIMEOUT_MS,
      }),
    ],
  });
  const tracer = provider.getTracer('highload-balance');
  let stopping: Promise<void> | undefined;

  return {
    startRequest(name, parent, attributes) {
      const context = parent === null ? ROOT_CONTEXT : contextOf(parent);
      return traced(tracer.startSpan(name, { kind: SpanKind.SERVER, attributes }, context));
    },
    startSpan(kind, name, contexts, attributes) {
      const [parent, ...others] = new Set([...contexts].filter(isSampled));
      if (parent === undefined) return undefined;
      const links = others.map((other) => ({ context: spanContextOf(other) }));
      return traced(tracer.startSpan(name, { kind: KINDS[kind], attributes, links }, contextOf(parent)));
    },
    stop() {
      stopping ??= within(STOP_TIMEOUT_MS, provider.shutdown(), () => {}).catch(() => {}); // the exporter has said why
      return stopping;
    },
  };
}

/** https://opentelemetry.io/docs/specs/otel/protocol/exporter/: the path belongs to the common endpoint only. */
function addressOf({ otelExporterOtlpTracesEndpoint, otelExporterOtlpEndpoint }: TracingSettings): { url?: string } {
  if (otelExporterOtlpTracesEndpoint) return { url: otelExporterOtlpTracesEndpoint };
  return otelExporterOtlpEndpoint ? { url: `${otelExporterOtlpEndpoint.replace(/\/+$/, '')}/v1/traces` } : {};
}

function samplerOf({ otelTracesSampler, otelTracesSamplerArg }: TracingSettings): Sampler {
  const kind = otelTracesSampler.replace('parentbased_', '');
  const root =
    kind === 'always_on'
      ? new AlwaysOnSampler()
      : kind === 'always_off'
        ? new AlwaysOffSampler()
        : new TraceIdRatioBasedSampler(otelTracesSamplerArg);
  return kind === otelTracesSampler ? root : new ParentBasedSampler({ root });
}

/** One line when sending begins to fail and one a minute while it does. */
function reportingFailures(exporter: SpanExporter, log: Logger): SpanExporter {
  let lostSpans = 0;
  let loggedAtMs = Number.NEGATIVE_INFINITY;
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        if (result.error) {
          lostSpans += spans.length;
          const nowMs = performance.now();
          if (nowMs - loggedAtMs >= FAILURE_LOG_EVERY_MS) {
            loggedAtMs = nowMs;
            log.warn({ err: result.error, lostSpans }, 'spans could not be sent to the collector');
          }
        }
        done(result);
      });
    },
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
    shutdown: () => exporter.shutdown(),
  };
}

function traced(span: Span): TracedSpan | undefined {
  const { traceId, spanId, traceFlags } = span.spanContext();
  if (!(traceFlags & TraceFlags.SAMPLED)) return undefined;
  return {
    traceparent: `00-${traceId}-${spanId}-01`,
    rename: (name) => void span.updateName(name),
    set: (attributes) => void span.setAttributes(attributes),
    fail(errorType) {
      span.setAttribute('error.type', errorType);
      span.setStatus({ code: SpanStatusCode.ERROR });
    },
    end: () => span.end(),
  };
}

/** The last digit of the flags is odd. */
function isSampled(traceparent: string | null): traceparent is string {
  return traceparent !== null && /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf]$/.test(traceparent);
}

function spanContextOf(traceparent: string) {
  const [, traceId = '', spanId = '', flags = ''] = traceparent.split('-');
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true };
}

function contextOf(traceparent: string): Context {
  return trace.setSpanContext(ROOT_CONTEXT, spanContextOf(traceparent));
}
