// A RabbitMQ node of our own from the machine's rabbitmq-server: free ports on loopback, own home, own data, own
// port mapper (epmd). Needs no root, and touches neither the machine's broker nor its settings.
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { KnownProcess } from '../shared/runtime.ts';
import { probeBroker } from './amqp-probe.ts';
import { freePort, samePort } from './free-port.ts';
import { openLog } from './log-file.ts';
import { findProgram, findRabbitmqServer } from './machine-broker.ts';
import { isAlive, knownProcess, signal, waitForExit } from './process-end.ts';
import { SetupProblem } from './setup-problem.ts';

// About 9 s on two quiet cores; the rest is for a busy machine and for data to be recovered.
const READY_TIMEOUT_MS = 120_000;
const PROBE_TIMEOUT_MS = 5_000;
const PROBE_INTERVAL_MS = 100;
// How long a node of an earlier run may take to answer before it is replaced.
const ADOPT_TIMEOUT_MS = 10_000;
const STOP_TIMEOUT_MS = 30_000;
const KILL_TIMEOUT_MS = 10_000;
// rabbitmqctl is a virtual machine of its own, which takes seconds to start on a busy machine.
const CONTROL_TIMEOUT_MS = 60_000;
const START_ATTEMPTS_MAX = 3;

// One node a folder, its name independent of the machine's, so that the data survives a renamed machine.
const NODE_NAME = 'balance@localhost';

export interface PrivateBrokerOptions {
  /** Folder for data, logs and settings; made when absent, continued when not. */
  dir: string;
  /** Preferred port for AMQP. A node that already ran in `dir` prefers the port it had. */
  port?: number;
  /** Further lines of rabbitmq.conf. */
  configuration?: string[];
  /** Plugins to start with. */
  plugins?: string[];
  say?: (line: string) => void;
  /** Called at once with each process that is started: the node and its port mapper. */
  onSpawn?: (process: KnownProcess) => void;
  /** Cancels the start: everything started is ended again, and its reason is thrown. */
  interrupted?: AbortSignal;
}

export interface PrivateBroker {
  /** Stays the same over kill, start and wipe. */
  url: string;
  port: number;
  version: string;
  /** true when the node of an earlier run was found running. */
  adopted: boolean;
  readonly pid: number;
  readonly isRunning: boolean;
  /** SIGKILL, as a power cut would: waits until the process is gone. */
  kill: () => Promise<void>;
  /** Starts again on the same port with the existing data; does nothing while it runs. */
  start: () => Promise<void>;
  /** Deletes the data; only while it is down. */
  wipe: () => void;
  /** Runs rabbitmqctl on the node and returns what it printed. Throws when it fails. */
  control: (...command: string[]) => Promise<string>;
  /** Orderly end of the node and its port mapper. Idempotent. */
  stop: () => Promise<void>;
}

interface NodeRecord {
  port: number;
  /** Of the port mapper, by which rabbitmqctl finds the node. */
  epmdPort?: number;
  node?: KnownProcess;
  epmd?: KnownProcess;
}

/** Throws SetupProblem when the machine has no rabbitmq-server or the node does not come up. */
export async function startPrivateBroker(options: PrivateBrokerOptions): Promise<PrivateBroker> {
  const { dir, say = () => undefined } = options;
  const program = findRabbitmqServer();
  if (!program) throw new SetupProblem('There is no rabbitmq-server on this machine.');
  mkdirSync(dir, { recursive: true });
  const recordFile = path.join(dir, 'node.json');
  let record = readRecord(recordFile);
  const save = (next: NodeRecord) => {
    record = next;
    writeFileSync(recordFile, JSON.stringify(next), { mode: 0o600 });
  };

  const launch = async (choosePort: () => Promise<number>): Promise<string> => {
    for (let attempt = 1; ; attempt += 1) {
      const port = await choosePort();
      await endProcess(record?.epmd, 'SIGTERM');
      const epmd = await spawnEpmd(options);
      const started = { port, epmdPort: epmd.port, ...(epmd.process && { epmd: epmd.process }) };
      save(started);
      const log = openLog(path.join(dir, 'start.log'));
      try {
        const node = await spawnNode(options, program, port, epmd.port, log.fd);
        save({ ...started, node });
        const { isReady, reason, version } = await untilReady(
          node,
          urlOf(port),
          READY_TIMEOUT_MS,
          say,
          options.interrupted,
        );
        if (isReady) return version;
        await endProcess(node, 'SIGKILL');
        const said = log.written();
        if (attempt < START_ATTEMPTS_MAX && /eaddrinuse|already in use|dist_port_already_used/i.test(said)) continue;
        throw new SetupProblem(
          `RabbitMQ did not start (${failureIn(said) ?? reason}); its log: ${dir}. If its data is not needed, delete that folder: the service publishes missing ledger entries again.`,
        );
      } catch (error) {
        await endProcess(record?.node, 'SIGKILL');
        await endProcess(record?.epmd, 'SIGTERM');
        throw error;
      } finally {
        log.close();
      }
    }
  };

  const adopted = await adopt(record, say);
  const version = adopted ?? (await launch(() => freePort(record?.port ?? options.port)));
  const { port } = record as NodeRecord;
  const node = () => record?.node as KnownProcess;
  return {
    url: urlOf(port),
    port,
    version,
    adopted: adopted !== undefined,
    get pid() {
      return node().pid;
    },
    get isRunning() {
      return isAlive(node());
    },
    kill: () => endProcess(node(), 'SIGKILL'),
    start: async () => {
      if (isAlive(node())) return;
      await launch(() => samePort(port));
    },
    wipe: () => {
      if (isAlive(node())) throw new Error('The data of a running broker cannot be wiped');
      rmSync(path.join(dir, 'data'), { recursive: true, force: true });
    },
    control: async (...command) => {
      const env = {
        PATH: `${process.env.PATH ?? ''}:/usr/sbin:/usr/bin:/sbin:/bin`,
        HOME: path.join(dir, 'home'), // with the cookie
        ERL_EPMD_PORT: String(record?.epmdPort),
      };
      const ctl = path.join(path.dirname(program), 'rabbitmqctl');
      const options = { env, timeout: CONTROL_TIMEOUT_MS };
      return (await promisify(execFile)(ctl, ['-n', NODE_NAME, ...command], options)).stdout;
    },
    stop: async () => {
      await endProcess(node(), 'SIGTERM');
      await endProcess(record?.epmd, 'SIGTERM');
    },
  };
}

/** Ends the node that may still run in the folder, and deletes the folder. */
export async function deletePrivateBroker(dir: string): Promise<void> {
  const record = readRecord(path.join(dir, 'node.json'));
  await endProcess(record?.node, 'SIGKILL');
  await endProcess(record?.epmd, 'SIGTERM');
  rmSync(dir, { recursive: true, force: true });
}

function urlOf(port: number): string {
  return `amqp://guest:guest@127.0.0.1:${port}`;
}

async function adopt(record: NodeRecord | undefined, say: (line: string) => void): Promise<string | undefined> {
  if (!record?.node || !isAlive(record.node)) return undefined;
  say(`RabbitMQ: found the node of an earlier run (process ${record.node.pid})`);
  const { isReady, version } = await untilReady(record.node, urlOf(record.port), ADOPT_TIMEOUT_MS, say);
  if (isReady) return version;
  say('RabbitMQ: it does not answer, replacing it');
  await endProcess(record.node, 'SIGKILL');
  return undefined;
}

// The port mapper that Erlang nodes register with. The machine's own is left alone: ours ends with
// the node, and it does not matter if another user's refuses us.
async function spawnEpmd(options: PrivateBrokerOptions): Promise<{ port: number; process?: KnownProcess }> {
  const port = await freePort();
  const program = findProgram('epmd', ['/usr/lib/erlang/bin', '/usr/local/lib/erlang/bin']);
  if (!program) return { port }; // then the node starts one by itself, as a daemon
  const child = spawn(program, ['-port', String(port), '-address', '127.0.0.1'], {
    cwd: '/',
    env: { PATH: process.env.PATH ?? '' },
    stdio: 'ignore',
    detached: true,
  });
  child.on('error', () => undefined);
  child.unref();
  const known = child.pid === undefined ? undefined : knownProcess(child.pid);
  if (!known) return { port };
  options.onSpawn?.(known);
  return { port, process: known };
}

async function spawnNode(
  options: PrivateBrokerOptions,
  program: string,
  port: number,
  epmdPort: number,
  logFd: number,
): Promise<KnownProcess> {
  const { dir } = options;
  const inDir = (name: string) => path.join(dir, name);
  for (const name of ['home', 'conf.d', 'log', 'data']) mkdirSync(inDir(name), { recursive: true });
  const configuration = [`listeners.tcp.1 = 127.0.0.1:${port}`, ...(options.configuration ?? [])];
  writeFileSync(inDir('rabbitmq.conf'), `${configuration.join('\n')}\n`);
  writeFileSync(inDir('advanced.config'), '[].\n');
  writeFileSync(inDir('enabled_plugins'), `[${(options.plugins ?? []).join(',')}].\n`);
  writeFileSync(inDir('rabbitmq-env.conf'), '');
  const child = spawn(program, [], {
    cwd: dir,
    env: {
      PATH: `${process.env.PATH ?? ''}:/usr/sbin:/usr/bin:/sbin:/bin`,
      LANG: 'C.UTF-8',
      HOME: inDir('home'),
      RABBITMQ_NODENAME: NODE_NAME,
      RABBITMQ_NODE_PORT: String(port),
      RABBITMQ_DIST_PORT: String(await freePort()),
      ERL_EPMD_PORT: String(epmdPort),
      ERL_EPMD_ADDRESS: '127.0.0.1',
      ERL_FLAGS: '-kernel inet_dist_use_interface {127,0,0,1}',
      RABBITMQ_MNESIA_BASE: inDir('data'),
      RABBITMQ_LOG_BASE: inDir('log'),
      RABBITMQ_PID_FILE: inDir('node.pid'),
      // Each of these overrides the configuration of the machine's own broker.
      RABBITMQ_CONF_ENV_FILE: inDir('rabbitmq-env.conf'),
      RABBITMQ_CONFIG_FILE: inDir('rabbitmq.conf'),
      RABBITMQ_CONFIG_FILES: inDir('conf.d'),
      RABBITMQ_ADVANCED_CONFIG_FILE: inDir('advanced.config'),
      RABBITMQ_ENABLED_PLUGINS_FILE: inDir('enabled_plugins'),
      // Makes the start script exec the node instead of being its parent: one process, with the
      // child's id.
      RUNNING_UNDER_SYSTEMD: 'true',
    },
    stdio: ['ignore', logFd, logFd],
    detached: true,
  });
  child.on('error', () => undefined);
  child.unref();
  const known = child.pid === undefined ? undefined : knownProcess(child.pid);
  if (!known) throw new SetupProblem(`${program} could not be started.`);
  options.onSpawn?.(known);
  return known;
}

interface Readiness {
  isReady: boolean;
  version: string;
  reason: string;
}

async function untilReady(
  node: KnownProcess,
  url: string,
  timeoutMs: number,
  say: (line: string) => void,
  interrupted?: AbortSignal,
): Promise<Readiness> {
  const startedAt = performance.now();
  let saidAtSeconds = 0;
  for (;;) {
    interrupted?.throwIfAborted();
    const probe = await probeBroker(url, PROBE_TIMEOUT_MS);
    if (probe.answer === 'ready') return { isReady: true, version: probe.version, reason: '' };
    if (!isAlive(node)) return { isReady: false, version: '', reason: 'it ended by itself' };
    const elapsedMs = performance.now() - startedAt;
    if (elapsedMs > timeoutMs) return { isReady: false, version: '', reason: probe.reason };
    const seconds = Math.floor(elapsedMs / 1000);
    if (seconds >= saidAtSeconds + 10) {
      saidAtSeconds = seconds;
      say(`RabbitMQ: still starting (${seconds} s)`);
    }
    await delay(PROBE_INTERVAL_MS);
  }
}

async function endProcess(known: KnownProcess | undefined, name: NodeJS.Signals): Promise<void> {
  if (!known || !signal(known, name)) return;
  if (await waitForExit(known, name === 'SIGKILL' ? KILL_TIMEOUT_MS : STOP_TIMEOUT_MS)) return;
  signal(known, 'SIGKILL');
  await waitForExit(known, KILL_TIMEOUT_MS);
}

function failureIn(log: string): string | undefined {
  return /(?:ERROR|BOOT FAILED|\berror:)[^\n]*/i.exec(log)?.[0];
}

function readRecord(file: string): NodeRecord | undefined {
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as NodeRecord) : undefined;
}
