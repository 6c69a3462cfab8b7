// Settings from the environment: one schema a process, read once, passed down. Only this file reads process.env.
// The name of a variable is the name of the setting in capitals: poolMax is POOL_MAX. docs/operations.md lists them.
import { accessSync, constants } from 'node:fs';
import { z } from 'zod';
import { BROKER_TLS_PARAMETERS } from './broker-tls.ts';
import { isLoopback } from './loopback.ts';

const whole = (min: number, max: number, fallback: number) =>
  z.coerce.number().int().min(min).max(max).default(fallback);

/** Each file that a URL names in one of these parameters has to be readable: what only a later connection notices, no start tells. */
const filesReadable = (parameters: readonly string[]) => (url: string, context: z.RefinementCtx) => {
  if (!URL.canParse(url)) return;
  for (const parameter of parameters) {
    const file = new URL(url).searchParams.get(parameter);
    if (file === null) continue;
    try {
      accessSync(file, constants.R_OK);
    } catch {
      context.addIssue(`names in ${parameter} a file that cannot be read: ${file}`);
    }
  }
};

const databaseUrl = z
  .string({ error: 'is not set: give a PostgreSQL URL such as postgres://user:password@localhost:5432/balance' })
  .regex(/^postgres(ql)?:\/\//, 'must be a PostgreSQL URL, starting with postgres://')
  .refine((url) => URL.canParse(url), 'is not a correct URL: percent-encode what is special in user and password')
  .superRefine(filesReadable(['sslrootcert', 'sslcert', 'sslkey']));
const amqpUrl = z
  .string({ error: 'is not set: give a RabbitMQ URL such as amqp://guest:guest@localhost:5672' })
  .regex(/^amqps?:\/\//, 'must be an AMQP URL, starting with amqp:// or amqps://')
  .refine(
    (url) => URL.canParse(url),
    'is not a correct URL: percent-encode what is special in user, password and virtual host',
  )
  .refine(
    (url) => url.startsWith('amqps:') || !BROKER_TLS_PARAMETERS.some((name) => url.includes(`${name}=`)),
    'names files for TLS, but amqp:// is without: start it with amqps://',
  )
  .superRefine(filesReadable(BROKER_TLS_PARAMETERS));
/** Prefix of the exchange and queues, so that several systems can share one broker. */
const amqpNamespace = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,64}$/, 'must be 1 to 64 of A-Z a-z 0-9 _ -')
  .default('balance');
/** Also the limit of a single key's own. */
export const RATE_LIMIT_MAX = 1_000_000_000;
const logLevel = z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info');

/** OpenTelemetry's own names. The SDK reads more of them by itself: headers, certificates, resource attributes. */
const tracing = {
  otelSdkDisabled: z
    .string()
    .transform((text) => text.toLowerCase() === 'true')
    .default(false),
  otelTracesExporter: z.enum(['otlp', 'none']).optional(),
  otelExporterOtlpEndpoint: z.url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL' }).optional(),
  otelExporterOtlpTracesEndpoint: z
    .url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL' })
    .optional(),
  otelExporterOtlpProtocol: z.literal('http/protobuf').default('http/protobuf'),
  otelTracesSampler: z
    .enum([
      ...(['always_on', 'always_off', 'traceidratio'] as const),
      ...(['parentbased_always_on', 'parentbased_always_off', 'parentbased_traceidratio'] as const),
    ])
    .default('parentbased_always_on'),
  /** Part of the requests that is traced, for the samplers by ratio. */
  otelTracesSamplerArg: z.coerce.number().min(0).max(1).default(1),
};
const tracingSettings = z.object(tracing);
export type TracingSettings = z.infer<typeof tracingSettings>;

const apiSettingsEach = z.object({
  ...tracing,
  databaseUrl,
  amqpUrl,
  amqpNamespace,
  logLevel,
  host: z.string().default('0.0.0.0'),
  port: whole(0, 65_535, 3000),
  /** Whether every call needs an API key. */
  auth: z.enum(['required', 'off']).default('required'),
  /** Updates, or other requests, that one key may make in a window; unset, as many as it likes. */
  rateLimit: z.coerce.number().int().min(1).max(RATE_LIMIT_MAX).optional(),
  rateLimitWindowS: whole(1, 3600, 1),
  /** Processes behind the port, each with lanes of its own. More than cores gain nothing. */
  apiProcesses: whole(1, 64, 1),
  /** Whether this process moves the outbox to RabbitMQ: on, off, or only (then it serves no HTTP). */
  relay: z.enum(['on', 'off', 'only']).default('on'),
  /** Connections that apply balance updates. An account always uses the same one of a process. */
  lanes: whole(1, 64, 4),
  /** Updates in one SQL statement. Above 1,000 the gain is small and neighbours wait longer. */
  batchRowsMax: whole(1, 10_000, 1000),
  /** Updates waiting in one lane; past it the answer is 503 overloaded. */
  queueRowsMax: whole(1, 1_000_000, 10_000),
  /** Age of the oldest waiting update past which a lane takes no more. A pause of the database may be as long. */
  queueWaitMaxMs: whole(10, 600_000, 1000),
  /** Longest wait for PostgreSQL to answer one statement. */
  statementTimeoutMs: whole(100, 600_000, 10_000),
  /** Idempotency keys are kept at least this long, and about twice as long at most. */
  idempotencyKeysKeptMs: whole(1000, 31_536_000_000, 86_400_000),
  /** Connections for everything but balance updates. */
  poolMax: whole(1, 100, 4),
  /** Largest request body. */
  bodyBytesMax: whole(1024, 16_777_216, 16_384),
  /** Largest body of a bulk request: 1,000 updates with the longest key and reference fit. */
  bulkBodyBytesMax: whole(1024, 16_777_216, 2_097_152),
  /** Events published but not yet confirmed. */
  relayInFlightMax: whole(1, 100_000, 2000),
  /** Events in one RabbitMQ message; above 1, messages under load are CloudEvents batches. */
  eventsPerMessageMax: whole(1, 1000, 1),
  /** Pause of an idle relay before it looks again for changes that other processes made. */
  relayIdleMs: whole(1, 60_000, 50),
  /** Age at which a confirmed event that the ledger still lacks is published again. */
  relayRepublishMs: whole(100, 3_600_000, 5000),
});
const apiSettings = apiSettingsEach
  .refine(({ auth, host }) => auth === 'required' || isLoopback(host), {
    path: ['auth'],
    message:
      'off is taken only where nobody else can call: set HOST to 127.0.0.1, ::1 or localhost, or leave AUTH out and create keys with `npm run keys -- create`',
  })
  .refine(({ auth, rateLimit }) => auth === 'required' || rateLimit === undefined, {
    path: ['rateLimit'],
    message: 'counts by API key: unset it, or leave AUTH out',
  });
export type ApiSettings = z.infer<typeof apiSettings>;

const workerSettings = z.object({
  ...tracing,
  databaseUrl,
  amqpUrl,
  amqpNamespace,
  logLevel,
  /** Messages the broker may hand out before they are acknowledged. */
  prefetch: whole(1, 65_535, 2000),
  /** Ledger entries in one SQL statement. */
  batchRowsMax: whole(1, 10_000, 500),
  statementTimeoutMs: whole(100, 600_000, 30_000),
  /** Port of /livez and /readyz; unset, the worker listens nowhere. */
  healthPort: z.coerce.number().int().min(0).max(65_535).optional(),
  healthHost: z.string().default('0.0.0.0'),
});
export type WorkerSettings = z.infer<typeof workerSettings>;

const databaseSettings = z.object({ databaseUrl });
const brokerSettings = z.object({ amqpUrl, amqpNamespace });

/** Off, unless a collector is named or the exporter is asked for. */
export function isTracing(settings: TracingSettings): boolean {
  if (settings.otelSdkDisabled || settings.otelTracesExporter === 'none') return false;
  const collector = settings.otelExporterOtlpTracesEndpoint ?? settings.otelExporterOtlpEndpoint;
  return settings.otelTracesExporter === 'otlp' || collector !== undefined;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** Thrown with one sentence for each setting that is missing or wrong. */
export class SettingsError extends Error {
  override name = 'SettingsError';
}

export const readApiSettings = (environment: Environment = process.env) => read(apiSettings, environment);
export const readWorkerSettings = (environment: Environment = process.env) => read(workerSettings, environment);
export const readDatabaseSettings = (environment: Environment = process.env) => read(databaseSettings, environment);
export const readBrokerSettings = (environment: Environment = process.env) => read(brokerSettings, environment);

/** The environment variable of each setting, for docs and tests. */
export const settingNames = {
  api: Object.keys(apiSettings.shape).map(toVariable),
  worker: Object.keys(workerSettings.shape).map(toVariable),
};

function read<Shape extends z.ZodRawShape>(schema: z.ZodObject<Shape>, environment: Environment) {
  const names = Object.keys(schema.shape);
  // An empty variable counts as unset: compose files and CI systems produce them for "no value".
  const given = Object.fromEntries(names.map((name) => [name, environment[toVariable(name)] || undefined]));
  const result = schema.safeParse(given);
  if (result.success) return result.data;
  const sentences = result.error.issues.map((issue) => `${toVariable(String(issue.path[0]))} ${issue.message}`);
  throw new SettingsError(sentences.join('\n'));
}

function toVariable(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}
