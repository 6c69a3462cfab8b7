// Real servers for tests: containers where Docker answers and has the images, else what `npm start`
// uses. Nothing that is started here outlives the process that asked for it.
import { dockerBackend } from './docker-backend.ts';
import { localBackend, temporaryFolder } from './local-backend.ts';
import { type Reaper, startReaper } from './reaper.ts';
import type { ServerTls } from './server-tls.ts';

export type BackendKind = 'docker' | 'local';

export interface DisposablePostgres {
  /** Superuser, database `postgres`. Stays the same over kill and start. */
  url: string;
  /** SIGKILL, as a power cut would; waits until the server is gone. */
  kill: () => Promise<void>;
  /**
   * `pg_ctl stop -m immediate`: ends without a checkpoint, and the next start recovers from the
   * log.
   */
  stopImmediately: () => Promise<void>;
  /** Starts again on the same port with the same data; returns when it answers. */
  start: () => Promise<void>;
  stop: () => Promise<void>;
}

export interface DisposableBroker {
  /** Stays the same over kill, start and restartEmpty. */
  url: string;
  /** Where it speaks TLS, when that was asked for. */
  tlsPort?: number;
  /** Of its management plugin, when that was asked for. */
  managementUrl?: string;
  /** SIGKILL, as a power cut would; waits until the broker is gone. */
  kill: () => Promise<void>;
  /** Starts again on the same port with the same data; returns when it answers. */
  start: () => Promise<void>;
  /** The broker lost its disk: killed, and started again on the same port with nothing. */
  restartEmpty: () => Promise<void>;
  /** Runs rabbitmqctl on it. */
  control: (...command: string[]) => Promise<void>;
  stop: () => Promise<void>;
}

export interface BrokerOptions {
  /** Speaks TLS too, and takes from it only clients with a certificate of the same authority. */
  tls?: ServerTls;
  /** With its management plugin. */
  management?: boolean;
}

export interface Backend {
  kind: BackendKind;
  description: string;
  startPostgres: () => Promise<DisposablePostgres>;
  startBroker: (options?: BrokerOptions) => Promise<DisposableBroker>;
  /** A broker that nobody kills: it may be the machine's own, used by others too. */
  startSharedBroker: () => Promise<{ url: string; description?: string; stop: () => Promise<void> }>;
}

// The choice of the run, for the processes that run its test files.
const KIND_VARIABLE = 'TEST_BACKEND';

let reaper: Reaper | undefined;
const theReaper = () => {
  reaper ??= startReaper();
  return reaper;
};

/**
 * Chooses once a run: TEST_BACKEND (`docker` or `local`) when set, else what works. A test file gets what the run
 * chose, through the same variable.
 */
export async function chooseBackend(say: (line: string) => void): Promise<{ backend: Backend; reason: string }> {
  const wanted = process.env[KIND_VARIABLE] || undefined;
  if (wanted !== undefined && wanted !== 'docker' && wanted !== 'local') {
    throw new Error(`${KIND_VARIABLE} is "docker" or "local", not "${wanted}"`);
  }
  if (wanted === 'local') return { backend: localBackend(theReaper, say), reason: `${KIND_VARIABLE}=local` };
  const docker = await dockerBackend(theReaper, say);
  if (!('unavailable' in docker)) return { backend: docker, reason: 'Docker answers and has the images' };
  if (wanted === 'docker') throw new Error(`${KIND_VARIABLE}=docker, but ${docker.unavailable}`);
  return { backend: localBackend(theReaper, say), reason: `no Docker: ${docker.unavailable}` };
}

/** Fixes the choice for this process and those it starts. */
export function fixBackend(kind: BackendKind): void {
  process.env[KIND_VARIABLE] = kind;
}

export function localBackendInstead(say: (line: string) => void): Backend {
  return localBackend(theReaper, say);
}

/** Deleted when this process ends, however it does. */
export function folderOfThisRun(): string {
  return temporaryFolder(theReaper());
}

/** Ends and deletes whatever is left of what this process started. */
export async function closeBackends(): Promise<void> {
  await reaper?.close();
  reaper = undefined;
}

/** A broker for one test file to kill, restart and empty. */
export async function startDisposableBroker(options?: BrokerOptions): Promise<DisposableBroker> {
  return (await chooseBackend(console.log)).backend.startBroker(options);
}

/** A PostgreSQL for one test file to kill and restart. */
export async function startDisposablePostgres(): Promise<DisposablePostgres> {
  return (await chooseBackend(console.log)).backend.startPostgres();
}
