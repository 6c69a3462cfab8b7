// PostgreSQL 18 from npm packages, on 127.0.0.1, in a separate process that outlives Ctrl-C. A
// server left by a crashed run is adopted; data survives any kind of end.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { DatabaseError, openClient } from '../shared/database.ts';
import type { KnownProcess } from '../shared/runtime.ts';
import { freePort, samePort } from './free-port.ts';
import { type LogFile, openLog } from './log-file.ts';
import { type PostgresBinaries, postgresBinaries } from './postgres-binaries.ts';
import { checkCluster, createCluster, isDiskFull } from './postgres-cluster.ts';
import { isAlive, knownProcess, signal, waitForExit } from './process-end.ts';
import { canReach, type ServerAccount, serverAccount } from './server-account.ts';
import { explainFileError, SetupProblem } from './setup-problem.ts';

// Replaying the write-ahead log of a crash may take minutes on a slow disk; past this, something else is wrong.
const READY_TIMEOUT_MS = 300_000;
const READY_POLL_INTERVAL_MS = 50;
// A fast shutdown writes one checkpoint. After this it is ended without one: the next start then
// replays the log.
const STOP_TIMEOUT_MS = 60_000;
// The helper processes of a killed server notice its death and release the shared memory within
// moments.
const START_ATTEMPTS_MAX = 40;
const START_RETRY_DELAY_MS = 250;
// It is starting or stopping, or has too many connections: a retry may succeed.
const PASSING_STATES: ReadonlySet<string> = new Set(['57P03', '53300']);

export interface PostgresOptions {
  /** Folder below which everything is kept; made when absent. */
  dir: string;
  /** Folder for root when the server's account cannot reach `dir`; `postgres` and the binaries then go there. */
  sharedDir?: string;
  /** Preferred port; the next free one is used if it is taken. */
  port?: number;
  /** Uses the port of the previous run instead, and waits for it: clients hold its address. */
  portFixed?: boolean;
  /** Made when absent; default `postgres`. */
  database?: string;
  /** false turns fsync off: for data that may be lost with the machine, as in tests. */
  durable?: boolean;
  maxConnections?: number;
  say?: (line: string) => void;
  /** Called with the process at once, before it is ready. */
  onSpawn?: (server: KnownProcess) => void;
  /** Cancels the start: everything started is stopped again, and its reason is thrown. */
  interrupted?: AbortSignal;
}

export interface RunningPostgres {
  url: string;
  port: number;
  dataDir: string;
  logFile: string;
  /** true when a server of an earlier run was found running. */
  adopted: boolean;
  process: KnownProcess;
  /** Fast shutdown; waits until the process is gone. Idempotent. */
  stop: () => Promise<void>;
}

interface Settings {
  password: string;
  port: number;
}

/**
 * Starts or adopts the server. On failure none is left running. @throws SetupProblem if a person
 * can fix it.
 */
export async function startPostgres(options: PostgresOptions): Promise<RunningPostgres> {
  try {
    return await start(options);
  } catch (error) {
    throw explainFileError(error, options.dir);
  }
}

async function start(options: PostgresOptions): Promise<RunningPostgres> {
  const { database = 'postgres', durable = true, say = () => undefined } = options;
  mkdirSync(options.dir, { recursive: true });
  const { account, parent } = place(options);
  const dataDir = path.join(parent, 'postgres');
  const logFile = path.join(options.dir, 'postgres.log');
  const binaries = postgresBinaries(account, options.sharedDir ?? parent);
  const settingsFile = path.join(options.dir, 'postgres.json');
  let settings = readSettings(settingsFile);
  if (checkCluster(dataDir, binaries.major) === 'absent') {
    settings = { password: randomBytes(18).toString('base64url'), port: settings?.port ?? options.port ?? 0 };
    writeSettings(settingsFile, settings);
    say('PostgreSQL: creating a data folder');
    await createCluster(binaries, account, dataDir, { password: settings.password, durable });
  }
  if (!settings) {
    throw new SetupProblem(
      `${settingsFile} with the password of the database in ${dataDir} is gone: put it back, or move both away to start empty.`,
    );
  }
  const owner = ownerOf(dataDir, account);
  const adopted = await adoptRunning(dataDir, settings.password, options);
  const running =
    adopted ??
    (await launch({
      options,
      binaries,
      account: owner,
      dataDir,
      logFile,
      durable,
      password: settings.password,
      settings,
    }));
  try {
    if (running.port !== settings.port) writeSettings(settingsFile, { ...settings, port: running.port });
    await ensureDatabase(urlOf(settings.password, running.port, 'postgres'), database);
  } catch (error) {
    await stop(running.process);
    throw error;
  }
  return {
    url: urlOf(settings.password, running.port, database),
    port: running.port,
    dataDir,
    logFile,
    adopted: adopted !== undefined,
    process: running.process,
    stop: () => stop(running.process),
  };
}

// Root's server runs under another account, which may not be able to enter the clone.
function place(options: Pick<PostgresOptions, 'dir' | 'sharedDir'>): { account: ServerAccount; parent: string } {
  const account = serverAccount();
  if (canReach(account, options.dir)) return { account, parent: options.dir };
  if (options.sharedDir === undefined) {
    throw new SetupProblem(`PostgreSQL runs as "${account.name}", which cannot enter ${options.dir}.`);
  }
  const idFile = path.join(options.dir, 'id');
  if (!existsSync(idFile)) writeFileSync(idFile, randomBytes(6).toString('hex'));
  const parent = path.join(options.sharedDir, readFileSync(idFile, 'utf8').trim());
  mkdirSync(parent, { recursive: true });
  // Not left to the umask: the account has to pass through both.
  for (const folder of [options.sharedDir, parent]) chmodSync(folder, 0o755);
  if (!canReach(account, parent)) {
    throw new SetupProblem(
      `PostgreSQL runs as "${account.name}", which cannot enter ${parent}: open it, or set DATABASE_URL.`,
    );
  }
  return { account, parent };
}

// Data created under one account is continued under it: root switches to the owner; any other user
// has to be the owner.
function ownerOf(dataDir: string, account: ServerAccount): ServerAccount {
  const { uid, gid } = statSync(dataDir);
  const own = account.uid ?? process.getuid?.();
  if (uid === own || own === undefined) return account;
  if (process.getuid?.() === 0 && uid !== 0) return { name: `user ${uid}`, uid, gid };
  throw new SetupProblem(
    `${dataDir} belongs to another user (${uid}): run the command as that user, or hand it over with chown -R.`,
  );
}

interface Launched {
  process: KnownProcess;
  port: number;
}

interface Launch {
  options: PostgresOptions;
  binaries: PostgresBinaries;
  account: ServerAccount;
  dataDir: string;
  logFile: string;
  durable: boolean;
  password: string;
  settings: Settings;
}

async function launch(launch: Launch): Promise<Launched> {
  const { options, dataDir, logFile, password } = launch;
  let preferred = launch.settings.port || options.port;
  for (let attempt = 1; ; attempt += 1) {
    const port = options.portFixed && preferred ? await samePort(preferred) : await freePort(preferred);
    const log = openLog(logFile);
    let server: KnownProcess | undefined;
    try {
      server = spawnServer(launch, port, log);
      options.onSpawn?.(server);
      await untilReady(server, urlOf(password, port, 'postgres'), options);
      return { process: server, port };
    } catch (error) {
      if (!(error instanceof ServerEnded)) {
        if (server) await stop(server);
        throw error;
      }
      const said = log.written();
      const isPortTaken = said.includes('Address already in use');
      const isHeldByDying = said.includes('pre-existing shared memory block');
      if ((!isPortTaken && !isHeldByDying) || attempt >= START_ATTEMPTS_MAX) throw explainEnd(said, dataDir, logFile);
      if (isPortTaken) preferred = port + 1;
      await delay(START_RETRY_DELAY_MS);
    } finally {
      log.close();
    }
  }
}

function spawnServer(launch: Launch, port: number, log: LogFile): KnownProcess {
  const { binaries, account, dataDir, durable, options } = launch;
  const settings = {
    port,
    listen_addresses: '127.0.0.1',
    // The folder's path may be longer than a socket's name can be, and TCP serves every client.
    unix_socket_directories: '',
    max_connections: options.maxConnections ?? 200,
    fsync: durable ? 'on' : 'off',
    full_page_writes: durable ? 'on' : 'off',
    log_timezone: 'UTC',
    timezone: 'UTC',
  };
  const { uid, gid } = account;
  const child = spawn(
    binaries.postgres,
    ['-D', dataDir, ...Object.entries(settings).flatMap(([k, v]) => ['-c', `${k}=${v}`])],
    {
      cwd: '/',
      env: { PATH: process.env.PATH ?? '', LC_ALL: 'C' },
      stdio: ['ignore', log.fd, log.fd],
      // A session of its own, so that Ctrl-C does not end it before the processes that still write
      // to it.
      detached: true,
      ...(uid !== undefined && gid !== undefined && { uid, gid }),
    },
  );
  // Reported by untilReady as a server that ended; the log says why.
  child.on('error', () => undefined);
  child.unref();
  const server = child.pid === undefined ? undefined : knownProcess(child.pid);
  if (!server) throw new ServerEnded();
  return server;
}

class ServerEnded extends Error {}

async function untilReady(
  server: KnownProcess,
  url: string,
  { say, interrupted }: Pick<PostgresOptions, 'say' | 'interrupted'>,
): Promise<void> {
  const startedAt = performance.now();
  let saidAtSeconds = 0;
  for (;;) {
    interrupted?.throwIfAborted();
    const { isReady, isFinal, reason } = await tryConnect(url);
    if (isReady) return;
    if (!isAlive(server)) throw new ServerEnded();
    const seconds = Math.floor((performance.now() - startedAt) / 1000);
    if (seconds >= saidAtSeconds + 10) {
      saidAtSeconds = seconds;
      say?.(`PostgreSQL: still starting, it may be replaying its log after a crash (${seconds} s)`);
    }
    if (isFinal || seconds * 1000 > READY_TIMEOUT_MS) {
      throw new SetupProblem(`PostgreSQL (process ${server.pid}) does not accept connections: ${reason}`);
    }
    await delay(READY_POLL_INTERVAL_MS);
  }
}

// A server of ours that outlived a crashed run keeps running; the remains of a dead one are moved
// away.
async function adoptRunning(
  dataDir: string,
  password: string,
  options: PostgresOptions,
): Promise<Launched | undefined> {
  const pidFile = pidFileIn(dataDir);
  const server = runningIn(dataDir);
  if (!server) {
    // PostgreSQL refuses to start while any process has that id: a later program, or the killed
    // server as an unreaped zombie. It still detects surviving parts of that server by its shared
    // memory.
    rmSync(pidFile, { force: true });
    return undefined;
  }
  const port = Number(readFileSync(pidFile, 'utf8').split('\n')[3]);
  options.say?.(`PostgreSQL: found the server of an earlier run (process ${server.pid})`);
  try {
    await untilReady(server, urlOf(password, port, 'postgres'), options);
    return { process: server, port };
  } catch (error) {
    if (error instanceof ServerEnded) return undefined; // it was shutting down
    await stop(server);
    throw error;
  }
}

function runningIn(dataDir: string): KnownProcess | undefined {
  const pidFile = pidFileIn(dataDir);
  if (!existsSync(pidFile)) return undefined;
  const pid = Math.abs(Number(readFileSync(pidFile, 'utf8').split('\n')[0]));
  return isPostgres(pid) ? knownProcess(pid) : undefined;
}

const pidFileIn = (dataDir: string) => path.join(dataDir, 'postmaster.pid');

function isPostgres(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('postgres');
  } catch {
    return true; // no /proc on this system: trust the file
  }
}

interface Answer {
  isReady: boolean;
  /** Waiting does not help. */
  isFinal: boolean;
  reason: string;
}

async function tryConnect(url: string): Promise<Answer> {
  try {
    const client = await openClient(url, 'start', { access: 'any server' });
    await client.end();
    return { isReady: true, isFinal: true, reason: '' };
  } catch (error) {
    const isFinal = error instanceof DatabaseError && !PASSING_STATES.has(error.code ?? '');
    return { isReady: false, isFinal, reason: (error as Error).message };
  }
}

async function ensureDatabase(adminUrl: string, database: string): Promise<void> {
  if (database === 'postgres') return;
  const client = await openClient(adminUrl, 'start');
  try {
    const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [database]);
    if (rowCount === 0) await client.query(`CREATE DATABASE ${client.escapeIdentifier(database)}`);
  } finally {
    await client.end();
  }
}

async function stop(server: KnownProcess): Promise<void> {
  signal(server, 'SIGINT');
  if (await waitForExit(server, STOP_TIMEOUT_MS)) return;
  signal(server, 'SIGQUIT');
  await waitForExit(server, STOP_TIMEOUT_MS);
}

/** Ends the server that may still run, and deletes its data. */
export async function deletePostgres(dir: string, sharedDir: string): Promise<void> {
  try {
    mkdirSync(dir, { recursive: true });
    const dataDir = path.join(place({ dir, sharedDir }).parent, 'postgres');
    const running = runningIn(dataDir);
    if (running) await stop(running);
    if (!existsSync(dataDir)) return;
    // All or nothing: the next start removes what a crash leaves here.
    const aside = `${dataDir}.new-deleted`;
    renameSync(dataDir, aside);
    rmSync(aside, { recursive: true, force: true });
  } catch (error) {
    throw explainFileError(error, dir);
  }
}

function urlOf(password: string, port: number, database: string): string {
  // It has no certificate, regardless of PGSSLMODE.
  return `postgresql://postgres:${password}@127.0.0.1:${port}/${database}?sslmode=disable`;
}

function readSettings(file: string): Settings | undefined {
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Settings) : undefined;
}

function writeSettings(file: string, settings: Settings): void {
  writeFileSync(file, JSON.stringify(settings), { mode: 0o600 });
}

function explainEnd(said: string, dataDir: string, logFile: string): SetupProblem {
  if (isDiskFull(said)) {
    return new SetupProblem(`The disk that holds ${dataDir} is full: make room and start again, no data was lost.`);
  }
  const reason =
    /(?:FATAL|PANIC|error while loading)[^\n]*/.exec(said)?.[0] ?? said.trim().split('\n').at(-1) ?? 'it said nothing';
  return new SetupProblem(`PostgreSQL did not start: ${reason} (its log: ${logFile})`);
}
