// Starts the parts of the local system in order, keeps them running until interrupted, stops them in reverse.
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { readApiSettings, readWorkerSettings } from '../shared/config.ts';
import { isLoopback } from '../shared/loopback.ts';
import { dataFolder, type Runtime, readRuntime, removeRuntime, writeRuntime } from '../shared/runtime.ts';
import { topologyOf } from '../shared/topology.ts';
import { type Address, checkAddress, readAddress } from './address.ts';
import type { Confirm } from './confirm.ts';
import type { DatabaseLogins } from './database-logins.ts';
import { showFirstUpdate } from './first-update.ts';
import { deleteOwnQueues, queueState } from './ledger-queue.ts';
import { type Database, embeddedDatabase, givenDatabase, migrateDatabase } from './local-database.ts';
import { OldData, setAside } from './old-data.ts';
import { knownProcess, signal, waitForExit } from './process-end.ts';
import { takeLock } from './process-lock.mjs';
import { findBroker, type RunningBroker } from './rabbitmq.ts';
import { type Reset, reset } from './reset.ts';
import { screen } from './screen.ts';
import { keepAlive } from './server-revival.ts';
import { startService } from './service-process.ts';
import { explainFileError, SetupProblem } from './setup-problem.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const READY_TIMEOUT_MS = 30_000;
const POLL_INTERVAL_MS = 50;
// How long a worker or a port of a crashed run may take to disappear.
const LEFTOVER_TIMEOUT_MS = 5_000;
// Changes that the worker has not recorded by then wait in the outbox for the next start.
const DRAIN_TIMEOUT_MS = 5_000;

export interface StartOptions {
  env: NodeJS.ProcessEnv;
  say: (line: string) => void;
  /** Ends the run in order, at any step. */
  interrupted: AbortSignal;
  /** Cuts the waits of that end short. */
  hurry: AbortSignal;
  /** Asks a person; undefined if there is no terminal. */
  confirm: Confirm | undefined;
  /** Deletes the data of earlier runs first. */
  reset?: Reset | undefined;
}

/** What runs, in the order in which it was started. */
interface Part {
  /** For people; undefined for internal parts. */
  name?: string | undefined;
  stop: () => Promise<void>;
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
  const { say, interrupted } = options;
  const lock = lockFolder(dir);
  const parts: Part[] = [];
  const sayStopping = () => {
    const names = parts.flatMap(({ name }) => name ?? []).reverse();
    say(`\nStopping${names.length > 0 ? `: ${names.join(', ')}` : ''}. Every answered update is kept.`);
  };
  interrupted.addEventListener('abort', sayStopping);
  try {
    await run(options, dir, parts);
  } catch (error) {
    if (error !== interrupted.reason) throw error; // otherwise a step was cancelled
  } finally {
    // One that fails must not keep the rest running.
    for (const part of parts.reverse())
      await part.stop().catch((error) => say(`Stopping: ${(error as Error).message}`));
    interrupted.removeEventListener('abort', sayStopping);
    lock.release();
  }
}

function lockFolder(dir: string): { release: () => void } {
  try {
    makeFolder(dir);
    const lock = takeLock(path.join(dir, 'lock'));
    if (lock.release) return lock;
    const { pid } = lock.holder;
    const url = readRuntime(dir)?.url;
    throw new SetupProblem(
      `It is already running in this folder (process ${pid})${url ? `, at ${url}` : ''}: stop that one with Ctrl-C or kill ${pid}, ` +
        'or start another one with its own PORT, DATA_DIR and AMQP_NAMESPACE.',
    );
  } catch (error) {
    throw explainFileError(error, dir);
  }
}

/** Level by level: Node's recursive mkdir does not terminate below /proc and the like. */
function makeFolder(dir: string): void {
  if (existsSync(dir)) return;
  makeFolder(path.dirname(dir));
  try {
    mkdirSync(dir);
  } catch (error) {
    if (!existsSync(dir)) throw error; // otherwise another start has created it
  }
}

async function run(options: StartOptions, dir: string, parts: Part[]): Promise<void> {
  const { env, say, interrupted } = options;
  const address = readAddress(env);
  const auth = env.AUTH || (isLoopback(address.host) ? 'off' : 'required');
  checkSettings(settingsOf(env, address, auth));
  await endLeftovers(dir, say);
  await checkAddress(address);
  if (options.reset) await reset(dir, env, options.reset, options.confirm, say);

  const givenUp = new AbortController();
  const database = await startDatabase(options, dir, parts, givenUp);
  const broker = await startBroker(options, dir, parts, givenUp);
  const logins = await database.logins();
  interrupted.throwIfAborted();
  const own = knownProcess(process.pid);
  if (!own) throw new Error('This process cannot be found');
  const runtime: Runtime = {
    ...{ url: address.url, databaseUrl: database.url, amqpUrl: broker.url, namespace: namespaceOf(env) },
    processes: { start: own },
  };
  parts.push({ stop: async () => removeRuntime(dir) });
  await startServices(options, settingsOf(env, address, auth), runtime, logins, dir, parts, givenUp);
  await untilServing(runtime.url, interrupted);

  const shown = await showFirstUpdate(runtime.url, database.url).catch(() => undefined);
  say(screen(runtime, shown, dir, auth));
  await aborted(AbortSignal.any([interrupted, givenUp.signal]));
  if (givenUp.signal.aborted) throw givenUp.signal.reason;
}

async function startDatabase(
  { env, say, interrupted }: StartOptions,
  dir: string,
  parts: Part[],
  givenUp: AbortController,
): Promise<Database> {
  const database = env.DATABASE_URL
    ? await givenDatabase(env.DATABASE_URL)
    : await embeddedDatabase(dir, say, interrupted);
  parts.push({ name: database.revival && 'PostgreSQL', stop: database.stop });
  parts.push({ stop: keepAlive('PostgreSQL', database.revival, say, givenUp) });
  say(`PostgreSQL: ${database.description}`);
  await migrateDatabase(database, say);
  interrupted.throwIfAborted();
  return database;
}

async function startBroker(
  { env, say, interrupted, confirm, reset: isReset }: StartOptions,
  dir: string,
  parts: Part[],
  givenUp: AbortController,
): Promise<RunningBroker> {
  const broker = await findBroker({ dir, env, say, confirm, interrupted });
  parts.push({ name: broker.shared ? undefined : 'RabbitMQ', stop: broker.stop });
  parts.push({ stop: keepAlive('RabbitMQ', broker.revival, say, givenUp) });
  say(broker.description);
  interrupted.throwIfAborted();
  const topology = topologyOf(namespaceOf(env));
  await ensureOnlyWorker(broker, topology.ledgerQueue);
  if (isReset && broker.shared) await deleteOwnQueues(broker.url, topology);
  return broker;
}

async function startServices(
  { say, hurry }: StartOptions,
  settings: NodeJS.ProcessEnv,
  runtime: Runtime,
  logins: DatabaseLogins,
  dir: string,
  parts: Part[],
  givenUp: AbortController,
): Promise<void> {
  const service = (name: 'api' | 'worker', title: string) =>
    startService({
      name: title,
      script: path.join(import.meta.dirname, '..', name, `main${path.extname(import.meta.filename)}`),
      env: { ...settings, DATABASE_URL: logins[name], AMQP_URL: runtime.amqpUrl, AMQP_NAMESPACE: runtime.namespace },
      logFile: path.join(dir, `${name}.log`),
      say,
      onStart: (process) => {
        runtime.processes[name] = process;
        writeRuntime(dir, runtime);
      },
      onGivenUp: (problem) => givenUp.abort(problem),
    });
  const worker = await service('worker', 'worker');
  const stopWorker = async () => {
    await drain(runtime.amqpUrl, topologyOf(runtime.namespace).ledgerQueue, hurry);
    await worker.stop(hurry);
  };
  parts.push({ name: 'worker', stop: stopWorker });
  const api = await service('api', 'API');
  parts.push({ name: 'API', stop: () => api.stop(hurry) });
}

const namespaceOf = (env: NodeJS.ProcessEnv) => env.AMQP_NAMESPACE || 'balance';

/** The environment of the API and the worker, but for the servers that are not known yet. */
function settingsOf(env: NodeJS.ProcessEnv, { host, port }: Address, auth: string): NodeJS.ProcessEnv {
  // The servers are already chosen here, by URLs, not by files.
  const withoutFiles = { DATABASE_URL_FILE: undefined, AMQP_URL_FILE: undefined };
  return { ...env, ...withoutFiles, HOST: host, PORT: String(port), AUTH: auth };
}

/**
 * Reports settings that the API or the worker would refuse, before anything starts. @throws
 * SetupProblem
 */
function checkSettings(settings: NodeJS.ProcessEnv): void {
  const { DATABASE_URL, AMQP_URL } = settings;
  const given = {
    ...settings,
    ...{ DATABASE_URL: DATABASE_URL || 'postgres://localhost', AMQP_URL: AMQP_URL || 'amqp://localhost' },
  };
  try {
    readApiSettings(given);
    readWorkerSettings(given);
  } catch (cause) {
    throw new SetupProblem((cause as Error).message, { cause });
  }
}

// The API and worker of a run that was killed stop by themselves when their parent is gone; this
// makes sure.
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

// Another system's worker on the same queue would treat our events as forged, and ours would treat
// its events the same way.
async function ensureOnlyWorker(broker: RunningBroker, queue: string): Promise<void> {
  if (!broker.shared) return;
  const deadline = performance.now() + LEFTOVER_TIMEOUT_MS;
  while (((await queueState(broker.url, queue))?.consumers ?? 0) > 0) {
    if (performance.now() > deadline) {
      throw new SetupProblem(
        `Another worker already consumes the queue "${queue}" on ${broker.description}, probably from another clone: ` +
          'stop that one, or use another namespace here, AMQP_NAMESPACE=balance2 npm start',
      );
    }
    await delay(POLL_INTERVAL_MS);
  }
}

async function untilServing(url: string, interrupted: AbortSignal): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    interrupted.throwIfAborted();
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

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
