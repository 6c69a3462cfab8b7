// Starts the parts of the local system in order, keeps them running until interrupted, stops them in reverse.
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Client, openClient } from '../shared/database.ts';
import { serverOf } from '../shared/database-url.ts';
import { isLoopback } from '../shared/loopback.ts';
import { UnreleasedDatabase } from '../shared/migration-error.ts';
import { migrate } from '../shared/migrations.ts';
import { topologyOf } from '../shared/topology.ts';
import { createDatabaseLogins, type DatabaseLogins } from './database-logins.ts';
import { type Shown, showFirstUpdate } from './first-update.ts';
import { isPortFree } from './free-port.ts';
import { queueState } from './ledger-queue.ts';
import { OldData, setAside } from './old-data.ts';
import { startPostgres } from './postgres.ts';
import { isAlive, knownProcess, signal, waitForExit } from './process-end.ts';
import { takeLock } from './process-lock.mjs';
import { findBroker, type RunningBroker } from './rabbitmq.ts';
import { dataFolder, type Runtime, readRuntime, removeRuntime, writeRuntime } from './runtime.ts';
import { keepAlive, type Revival } from './server-revival.ts';
import { type Service, startService } from './service-process.ts';
import { explainFileError, SetupProblem } from './setup-problem.ts';

const POSTGRES_PORT_PREFERRED = 15_432;
const SHARED_DIR = '/var/lib/highload-balance';
const CONNECT_TIMEOUT_MS = 10_000;
const READY_TIMEOUT_MS = 30_000;
const POLL_INTERVAL_MS = 50;
// How long a worker or a port of a crashed run may take to go away.
const LEFTOVER_TIMEOUT_MS = 5_000;
// What the worker has not recorded by then waits in the outbox for the next start.
const DRAIN_TIMEOUT_MS = 5_000;

export interface StartOptions {
  env: NodeJS.ProcessEnv;
  say: (line: string) => void;
  /** Ends the run in order, at whatever step it is. */
  interrupted: AbortSignal;
  /** Cuts the waits of that end short. */
  hurry: AbortSignal;
  /** Asks a person; undefined where nobody is there. */
  confirm: ((question: string) => Promise<boolean>) | undefined;
}

interface Database {
  /** Of the owner. */
  url: string;
  /** Of the processes; asked for when the schema is there. */
  logins: () => Promise<DatabaseLogins>;
  description: string;
  stop: () => Promise<void>;
  /** Absent where the server is not ours to start again. */
  revival?: Revival;
}

/** Returns after an orderly end. Throws SetupProblem, with everything stopped again, when it cannot run. */
export async function start(options: StartOptions): Promise<void> {
  const dir = dataFolder(options.env);
  try {
    await startIn(dir, options);
  } catch (error) {
    if (!(error instanceof OldData)) throw error;
    const lock = lockFolder(dir);
    try {
      options.say(`The old data is in ${await setAside(dir, options.confirm)}`);
    } finally {
      lock.release();
    }
    await startIn(dir, options);
  }
}

async function startIn(dir: string, options: StartOptions): Promise<void> {
  const lock = lockFolder(dir);
  const stops: (() => Promise<void>)[] = [];
  try {
    await run(options, dir, stops);
  } finally {
    // One that fails must not keep the rest running.
    for (const stop of stops.reverse())
      await stop().catch((error) => options.say(`Stopping: ${(error as Error).message}`));
    lock.release();
  }
}

function lockFolder(dir: string): { release: () => void } {
  try {
    mkdirSync(dir, { recursive: true });
    const lock = takeLock(path.join(dir, 'lock'));
    if (lock.release) return lock;
    const url = readRuntime(dir)?.url;
    throw new SetupProblem(
      `It already runs in this folder (process ${lock.holder.pid})${url ? `, at ${url}` : ''}: stop that one with Ctrl-C, ` +
        'or start another with a PORT, DATA_DIR and AMQP_NAMESPACE of its own.',
    );
  } catch (error) {
    throw explainFileError(error, dir);
  }
}

async function run(options: StartOptions, dir: string, stops: (() => Promise<void>)[]): Promise<void> {
  const { env, say, interrupted, hurry } = options;
  const { host, port } = address(env);
  const auth = env.AUTH || (isLoopback(host) ? 'off' : 'required');
  await endLeftovers(dir, say);
  await ensurePortFree(host, port);

  const database = env.DATABASE_URL ? await givenDatabase(env.DATABASE_URL) : await embeddedDatabase(dir, say);
  stops.push(database.stop);
  const givenUp = new AbortController();
  stops.push(keepAlive('PostgreSQL', database.revival, say, givenUp));
  say(`PostgreSQL: ${database.description}`);
  await migrateDatabase(database, say);
  if (interrupted.aborted) return;

  const broker = await findBroker({ dir, env, say });
  stops.push(broker.stop);
  stops.push(keepAlive('RabbitMQ', broker.revival, say, givenUp));
  say(`RabbitMQ: ${broker.description}`);
  if (interrupted.aborted) return;

  const namespace = env.AMQP_NAMESPACE || 'balance';
  const { ledgerQueue } = topologyOf(namespace);
  await ensureOnlyWorker(broker, ledgerQueue);
  const logins = await database.logins();
  if (interrupted.aborted) return;

  const url = `http://${host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host}:${port}`;
  const own = knownProcess(process.pid);
  if (!own) throw new Error('This process cannot be found');
  const runtime: Runtime = {
    url,
    databaseUrl: database.url,
    amqpUrl: broker.url,
    namespace,
    processes: { start: own },
  };
  const service = (name: 'api' | 'worker', title: string): Promise<Service> =>
    startService({
      name: title,
      script: fileURLToPath(new URL(`../${name}/main.ts`, import.meta.url)),
      env: {
        ...env,
        DATABASE_URL: logins[name],
        AMQP_URL: broker.url,
        AMQP_NAMESPACE: namespace,
        HOST: host,
        PORT: String(port),
        AUTH: auth,
      },
      logFile: path.join(dir, `${name}.log`),
      say,
      onStart: (process) => {
        runtime.processes[name] = process;
        writeRuntime(dir, runtime);
      },
      onGivenUp: (problem) => givenUp.abort(problem),
    });
  stops.push(async () => removeRuntime(dir));
  const worker = await service('worker', 'worker');
  stops.push(async () => {
    await drain(broker.url, ledgerQueue, hurry);
    await worker.stop(hurry);
  });
  const api = await service('api', 'API');
  stops.push(() => api.stop(hurry));
  await untilServing(url, interrupted);
  if (interrupted.aborted) return;

  const shown = await showFirstUpdate(url, database.url).catch(() => undefined);
  say(screen({ runtime, shown, dir, database, broker, auth }));
  await aborted(AbortSignal.any([interrupted, givenUp.signal]));
  if (givenUp.signal.aborted) throw givenUp.signal.reason;
}

function address(env: NodeJS.ProcessEnv): { host: string; port: number } {
  const port = Number(env.PORT || 3000);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new SetupProblem(`PORT has to be a number from 1 to 65535, not "${env.PORT}".`);
  }
  return { host: env.HOST || '127.0.0.1', port };
}

// The API and worker of a run that was killed stop by themselves when their parent is gone; this makes sure of it.
async function endLeftovers(dir: string, say: (line: string) => void): Promise<void> {
  const { api, worker } = readRuntime(dir)?.processes ?? {};
  for (const [name, known] of [['API', api] as const, ['worker', worker] as const]) {
    if (!known || !signal(known, 'SIGTERM')) continue;
    say(`Ending the ${name} of an earlier run (process ${known.pid})`);
    if (await waitForExit(known, LEFTOVER_TIMEOUT_MS)) continue;
    signal(known, 'SIGKILL');
    await waitForExit(known, LEFTOVER_TIMEOUT_MS);
  }
  removeRuntime(dir);
}

async function ensurePortFree(host: string, port: number): Promise<void> {
  if (await isPortFree(port, host)) return;
  throw new SetupProblem(
    `Port ${port} on ${host} cannot be had, another program uses it: start with another one, PORT=${port + 1} npm start`,
  );
}

async function embeddedDatabase(dir: string, say: (line: string) => void): Promise<Database> {
  const settings = { dir, sharedDir: SHARED_DIR, port: POSTGRES_PORT_PREFERRED, database: 'balance', say };
  let server = await startPostgres(settings);
  return {
    url: server.url,
    logins: () => createDatabaseLogins(server.url),
    description: `embedded, port ${server.port}, data in ${server.dataDir}`,
    stop: () => server.stop(),
    revival: {
      isRunning: () => isAlive(server.process),
      start: async () => {
        server = await startPostgres({ ...settings, portFixed: true });
      },
    },
  };
}

async function givenDatabase(url: string): Promise<Database> {
  if (!/^postgres(ql)?:\/\//.test(url)) {
    throw new SetupProblem('DATABASE_URL has to look like postgresql://user:password@host:5432/database');
  }
  if (!URL.canParse(url)) throw new SetupProblem('DATABASE_URL is not a correct URL: percent-encode what is special.');
  const where = serverOf(url);
  try {
    const client = await openClient(url, 'start', { statementTimeoutMs: CONNECT_TIMEOUT_MS });
    const version = await versionOf(client).finally(() => client.end());
    const description = `${version} at ${where} (DATABASE_URL)`;
    // Somebody's own server: no role is made there, and the processes are whoever the URL says.
    return { url, logins: async () => ({ api: url, worker: url }), description, stop: () => Promise.resolve() };
  } catch (cause) {
    const { message, code } = cause as NodeJS.ErrnoException;
    throw new SetupProblem(
      `The PostgreSQL at ${where} (DATABASE_URL) cannot be used: ${message || code}. Correct DATABASE_URL, or unset it to use the embedded one.`,
      { cause },
    );
  }
}

async function versionOf(client: Client): Promise<string> {
  return (await client.query("SELECT current_setting('server_version') AS version")).rows[0].version;
}

// Another system's worker on the same queue would take our events for forgeries, and ours would take its own.
async function ensureOnlyWorker(broker: RunningBroker, queue: string): Promise<void> {
  if (!broker.shared) return;
  const deadline = performance.now() + LEFTOVER_TIMEOUT_MS;
  while (((await queueState(broker.url, queue))?.consumers ?? 0) > 0) {
    if (performance.now() > deadline) {
      throw new SetupProblem(
        `Another worker already consumes the queue "${queue}" on ${broker.description}, probably of another clone: ` +
          'stop that one, or give this one names of its own, AMQP_NAMESPACE=balance2 npm start',
      );
    }
    await delay(POLL_INTERVAL_MS);
  }
}

async function migrateDatabase({ url, revival }: Database, say: (line: string) => void): Promise<void> {
  try {
    const { version, applied, changed, repaired } = await migrate(url);
    const news = applied.length + changed.length;
    if (news > 0) say(`Schema: version ${version}, ${news} new`);
    for (const sentence of repaired) say(`Schema: ${sentence}`);
  } catch (cause) {
    if (cause instanceof UnreleasedDatabase && revival) throw new OldData(cause);
    throw new SetupProblem(`The database could not be migrated: ${(cause as Error).message}`, { cause });
  }
}

async function untilServing(url: string, interrupted: AbortSignal): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  while (!interrupted.aborted) {
    const isReady = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(CONNECT_TIMEOUT_MS) }).then(
      (response) => response.ok,
      () => false,
    );
    if (isReady) return;
    if (performance.now() > deadline)
      throw new SetupProblem(`${url}/readyz does not answer 200; see the log of the API.`);
    await delay(POLL_INTERVAL_MS);
  }
}

async function drain(amqpUrl: string, queue: string, hurry: AbortSignal): Promise<void> {
  const deadline = performance.now() + DRAIN_TIMEOUT_MS;
  while (!hurry.aborted && performance.now() < deadline) {
    const state = await queueState(amqpUrl, queue);
    if (!state || state.messages === 0 || state.consumers === 0) return;
    await delay(POLL_INTERVAL_MS);
  }
}

function screen(facts: {
  runtime: Runtime;
  shown: Shown | undefined;
  dir: string;
  database: Database;
  broker: RunningBroker;
  auth: string;
}): string {
  const { runtime, shown, dir, auth } = facts;
  return `
  Running at ${runtime.url}
${shown ? `\n  ${shown.command}\n  ${shown.answer}\n` : ''}
  History      curl -s ${runtime.url}/v1/accounts/${shown ? 'demo' : '{id}'}/entries
  Events       npm run example:subscriber
  Proof        npm run verify
  API keys     ${auth === 'off' ? 'off: for whoever is on this machine (AUTH=required asks for them)' : 'npm run keys -- create CLIENT --scopes read,write,admin'}
  Database     ${runtime.databaseUrl}
  RabbitMQ     ${runtime.amqpUrl} (exchange ${topologyOf(runtime.namespace).eventsExchange})
  Data, logs   ${dir}
  Stop         Ctrl-C; the next npm start continues with the same balances
`;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
