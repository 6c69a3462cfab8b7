// Settings from the environment: one schema per process, read once, passed down. Only this file
// reads process.env. The name of a variable is the name of the setting in capitals: poolMax is
// POOL_MAX. docs/run.md lists them.
import { accessSync, constants, readFileSync } from 'node:fs';
import { BROKER_TLS_PARAMETERS } from './broker-tls.ts';
import { brokerUrls, problemOfBrokerUrls } from './broker-urls.ts';
import { namesSeveralHosts, SEVERAL_HOSTS } from './database-url.ts';
import { isLoopback } from './loopback.ts';
import { MESSAGE_EVENTS_MAX } from './message-bounds.ts';
import { z } from './zod.ts';

const number = (min: number, max: number) => {
  const what = `must be a whole number from ${min} to ${max}`;
  return z
    .string()
    .regex(/^\d{1,15}$/, what)
    .transform(Number)
    .refine((value) => value >= min && value <= max, what);
};
const whole = (min: number, max: number, fallback: number) => number(min, max).default(fallback);
const httpUrl = z.url({ protocol: /^https?$/, error: 'must be an http:// or https:// URL' }).optional();

/**
 * Checks that each file a URL names in these parameters is readable, so that the start reports it
 * and not a later connection.
 */
const filesReadable = (parameters: readonly string[]) => (url: string, context: z.RefinementCtx) => {
  if (!URL.canParse(url)) return;
  for (const parameter of parameters) {
    const file = new URL(url).searchParams.get(parameter);
    if (file === null) continue;
    try {
      accessSync(file, constants.R_OK);
    } catch {
      context.addIssue(`names a file in ${parameter} that cannot be read: ${file}`);
    }
  }
};

const databaseUrl = z
  .string({ error: 'is not set: give a PostgreSQL URL such as postgres://user:password@localhost:5432/balance' })
  .regex(/^postgres(ql)?:\/\//, 'must be a PostgreSQL URL, starting with postgres://')
  .refine((url) => !namesSeveralHosts(url), SEVERAL_HOSTS)
  .refine(
    (url) => URL.canParse(url),
    'is not a correct URL: percent-encode special characters in the user and password',
  )
  .superRefine(filesReadable(['sslrootcert', 'sslcert', 'sslkey']));
const amqpUrl = z
  .string({ error: 'is not set: give a RabbitMQ URL such as amqp://guest:guest@localhost:5672' })
  .superRefine((list, context) => {
    const problem = problemOfBrokerUrls(list);
    if (problem !== undefined) context.addIssue(problem);
    else for (const url of brokerUrls(list)) filesReadable(BROKER_TLS_PARAMETERS)(url, context);
  });
/** Prefix of the exchange and queues, so that several systems can share one broker. */
const amqpNamespace = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,64}$/, 'must be 1 to 64 of A-Z a-z 0-9 _ -')
  .default('balance');
/** Also the maximum for the limit of a single key. */
export const RATE_LIMIT_MAX = 1_000_000_000;
export const RATE_LIMIT_WINDOW_S_MAX = 3600;
/** The longest that a stop goes on listening; what follows has the rest of the 25 s of a stop. */
export const DRAIN_MS_MAX = 8000;
const logLevel = z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info');

const RATIO = 'must be a number from 0 to 1, such as 0.1';

/** OpenTelemetry's own names. The SDK reads more of them by itself: headers, certificates, resource attributes. */
const tracing = {
  otelSdkDisabled: z
    .string()
    .transform((text) => text.toLowerCase() === 'true')
    .default(false),
  otelTracesExporter: z.enum(['otlp', 'none']).optional(),
  otelExporterOtlpEndpoint: httpUrl,
  otelExporterOtlpTracesEndpoint: httpUrl,
  otelExporterOtlpProtocol: z.literal('http/protobuf').default('http/protobuf'),
  otelTracesSampler: z
    .enum([
      ...(['always_on', 'always_off', 'traceidratio'] as const),
      ...(['parentbased_always_on', 'parentbased_always_off', 'parentbased_traceidratio'] as const),
    ])
    .default('parentbased_always_on'),
  /** Part of the requests that is traced, for the samplers by ratio. */
  otelTracesSamplerArg: z.coerce.number(RATIO).min(0, RATIO).max(1, RATIO).default(1),
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
  /** Updates, or other requests, that one key may make in a window; unset: unlimited. */
  rateLimit: number(1, RATE_LIMIT_MAX).optional(),
  rateLimitWindowS: whole(1, RATE_LIMIT_WINDOW_S_MAX, 1),
  /**
   * Whether each client gets a fair share of the process, whatever others send. Without keys, all
   * count as one client.
   */
  clientShares: z.enum(['on', 'off']).default('on'),
  /**
   * Declined operations with an idempotency key that are remembered for one client while keys are
   * kept.
   */
  declinesKeptMax: whole(1, 1_000_000_000_000, 10_000_000),
  /**
   * Largest share of the event loop's time for pages of entries and exports while updates arrive.
   *
   */
  pagesSharePercent: whole(1, 100, 20),
  /**
   * Processes that share the port, each with its own lanes. More than the number of cores gains
   * nothing.
   */
  apiProcesses: whole(1, 64, 1),
  /**
   * How long a stop goes on listening at least, for load balancers that learn late of it and send
   * new connections until then.
   */
  drainMsMin: whole(0, DRAIN_MS_MAX, 0),
  /** Whether this process moves the outbox to RabbitMQ: on, off, or only (then it serves no HTTP). */
  relay: z.enum(['on', 'off', 'only']).default('on'),
  /** Connections that apply balance updates. An account always uses the same one of a process. */
  lanes: whole(1, 64, 4),
  /** Updates in one SQL statement. Above 1,000 the gain is small and neighbours wait longer. */
  batchRowsMax: whole(1, 10_000, 1000),
  /** Updates waiting in one lane; past it the answer is 503 overloaded. */
  queueRowsMax: whole(1, 1_000_000, 10_000),
  /**
   * Age of the oldest waiting update beyond which a lane accepts no more. The database may pause
   * for as long.
   */
  queueWaitMaxMs: whole(10, 600_000, 1000),
  /** Longest wait for PostgreSQL to answer one statement. */
  statementTimeoutMs: whole(100, 600_000, 10_000),
  /** Idempotency keys are kept for at least this long, and at most about twice as long. */
  idempotencyKeysKeptMs: whole(1000, 31_536_000_000, 86_400_000),
  /** Connections for everything but balance updates. */
  poolMax: whole(1, 100, 4),
  /** Largest request body. */
  bodyBytesMax: whole(1024, 4_194_304, 16_384),
  /** Events in one message to subscribers; above 1, messages under load are CloudEvents batches. */
  eventsPerMessageMax: whole(1, MESSAGE_EVENTS_MAX, 1),
  /** How long a transaction other than a backup may block the truncation of the outbox. */
  snapshotPatienceMs: whole(1000, 86_400_000, 120_000),
  /** RabbitMQ's management plugin, used to find and put aside a queue that accepts no events. */
  amqpManagementUrl: httpUrl,
  /** How long a subscriber's queue may accept no events before it is put aside. */
  subscriberAsideMs: whole(1000, 3_600_000, 30_000),
  /**
   * How long subscribers wait for a queue that cannot be put aside before events are passed over
   * and noted as missed.
   */
  subscriberPatienceMs: whole(1000, 86_400_000, 600_000),
  /** Size of the outbox at which they are passed over sooner. */
  subscriberPatienceBytes: whole(16_777_216, 1_099_511_627_776, 1_073_741_824),
  /** Age at which a confirmed event that the ledger still lacks is published again. */
  relayRepublishMs: whole(100, 3_600_000, 5000),
});
const apiSettings = apiSettingsEach
  .refine(({ auth, host }) => auth === 'required' || isLoopback(host), {
    path: ['auth'],
    message:
      'off is only accepted where no other machine can connect: set HOST to 127.0.0.1, ::1 or localhost, or leave AUTH out and create keys with `npm run keys -- create`',
  })
  .refine(({ auth, rateLimit }) => auth === 'required' || rateLimit === undefined, {
    path: ['rateLimit'],
    message: 'counts per API key: unset it, or do not set AUTH=off',
  });
export type ApiSettings = z.infer<typeof apiSettings>;

const workerSettings = z.object({
  ...tracing,
  databaseUrl,
  amqpUrl,
  amqpNamespace,
  logLevel,
  /** Messages the broker may hand out before they are acknowledged: up to 100 events and 1 MiB each. */
  prefetch: whole(1, 250, 125),
  /** Ledger entries in one SQL statement. */
  batchRowsMax: whole(1, 10_000, 500),
  statementTimeoutMs: whole(100, 600_000, 30_000),
  /** Port of /livez and /readyz; unset: the worker does not listen. */
  healthPort: number(0, 65_535).optional(),
  healthHost: z.string().default('0.0.0.0'),
});
export type WorkerSettings = z.infer<typeof workerSettings>;

const databaseSettings = z.object({ databaseUrl });
const loginSettings = z.object({
  apiDatabaseUrl: databaseUrl,
  workerDatabaseUrl: databaseUrl,
  operatorDatabaseUrl: databaseUrl.optional(),
});
export type LoginSettings = z.infer<typeof loginSettings>;
const brokerSettings = z.object({ amqpUrl, amqpNamespace, amqpManagementUrl: httpUrl });
export type BrokerSettings = z.infer<typeof brokerSettings>;

/** Off unless a collector or the exporter is configured. */
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
export const readLoginSettings = (environment: Environment = process.env) => read(loginSettings, environment);
export const readBrokerSettings = (environment: Environment = process.env) => read(brokerSettings, environment);

/** The environment variable of each setting, for docs and tests. */
export const settingNames = {
  api: Object.keys(apiSettings.shape).map(toVariable),
  worker: Object.keys(workerSettings.shape).map(toVariable),
};

function read<Shape extends z.ZodRawShape>(schema: z.ZodObject<Shape>, environment: Environment) {
  const names = Object.keys(schema.shape);
  const given = Object.fromEntries(names.map((name) => [name, givenIn(toVariable(name), environment)]));
  const result = schema.safeParse(given);
  if (result.success) return result.data;
  const sentences = new Map<string, string>();
  for (const { path, message } of result.error.issues) {
    const name = toVariable(String(path[0]));
    if (!sentences.has(name)) sentences.set(name, `${name} ${message}`);
  }
  throw new SettingsError([...sentences.values()].join('\n'));
}

/**
 * They hold passwords: a variable with this name plus _FILE may name a file with the value, as with
 * container secrets.
 */
const SECRETS: ReadonlySet<string> = new Set([
  ...['DATABASE_URL', 'AMQP_URL'],
  ...['API_DATABASE_URL', 'WORKER_DATABASE_URL', 'OPERATOR_DATABASE_URL'],
]);

function givenIn(variable: string, environment: Environment): string | undefined {
  // An empty variable counts as unset: compose files and CI systems produce them for "no value".
  const value = environment[variable] || undefined;
  const file = (SECRETS.has(variable) && environment[`${variable}_FILE`]) || undefined;
  if (file === undefined) return value;
  if (value !== undefined)
    throw new SettingsError(`${variable} and ${variable}_FILE are both set: set only one of them`);
  try {
    return readFileSync(file, 'utf8').trim() || undefined;
  } catch (cause) {
    throw new SettingsError(`${variable}_FILE names a file that cannot be read: ${file}`, { cause });
  }
}

function toVariable(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}
