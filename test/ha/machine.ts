// A machine of the test: an address of its own on a network that only exists for the run, and
// processes that see nothing but each other. All of it is namespaces of Linux, which end with their
// first process: nothing is left, however the run ends.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type ServerAccount, serverAccount } from '../../src/local/server-account.ts';
import type { ProcessKeeper } from '../bench/processes.ts';

export type Program = 'etcd' | 'patroni' | 'postgres';

export interface Machine {
  readonly name: string;
  readonly address: string;
  /** The id of its first process, by which its namespaces are found. */
  readonly init: number;
  /** Starts a program as the account of PostgreSQL. */
  start(command: readonly string[], options: { logFile: string; env?: Record<string, string> }): void;
  /**
   * @returns how many processes of these programs got it; without programs, all but the first
   * process.
   */
  signal(name: NodeJS.Signals, ...programs: Program[]): number;
  /** Runs a command as root inside. */
  run(...command: string[]): string;
}

/** Adopts and buries the processes whose parents die, as the first process of a machine must. */
const INIT = 'while :; do sleep 3600 & wait $!; done';
const NAMESPACES = ['--net', '--pid', '--ipc', '--fork', '--kill-child', '--mount-proc'];
const START_TIMEOUT_MS = 5000;
const RUN_TIMEOUT_MS = 10_000;

/** Whether this account and system can have machines. */
export function canHaveMachines(): boolean {
  try {
    execFileSync('unshare', [...NAMESPACES, 'true'], { stdio: 'ignore', timeout: RUN_TIMEOUT_MS });
    return true;
  } catch {
    return false;
  }
}

export async function startMachine(keeper: ProcessKeeper, name: string, address: string): Promise<Machine> {
  const child = spawn('unshare', [...NAMESPACES, 'bash', '-c', INIT], { cwd: '/', stdio: 'ignore', detached: true });
  child.unref();
  keeper.keep(child); // --kill-child: its child, and with it everything on the machine, ends with it
  const init = await firstChild(child.pid as number);
  const inside = ['-t', String(init), '-n', '-p', '-i', '-m'];
  const account = serverAccount();
  const entrances: ChildProcess[] = [];
  return {
    name,
    address,
    init,
    start(command, { logFile, env = {} }) {
      const log = openSync(logFile, 'a');
      const started = spawn('nsenter', [...inside, 'setpriv', ...asAccount(account), ...command], {
        cwd: '/',
        env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', HOME: '/var/lib/postgresql', ...env },
        stdio: ['ignore', log, log],
        detached: true,
      });
      started.on('error', () => {}); // what it should do will not happen, and that is waited for
      started.unref();
      closeSync(log);
      // It stops when what it started is stopped, and would stay so.
      keeper.keep(started);
      entrances.push(started);
    },
    signal(name, ...programs) {
      const wanted = processesOf(init).filter(({ program }) => programs.length === 0 || programs.includes(program!));
      for (const { pid } of wanted) {
        try {
          process.kill(pid, name);
        } catch {} // it has ended
      }
      if (name === 'SIGCONT') for (const entrance of entrances) entrance.kill(name);
      return wanted.length;
    },
    run: (...command) =>
      execFileSync('nsenter', [...inside, ...command], { encoding: 'utf8', timeout: RUN_TIMEOUT_MS, stdio: 'pipe' }),
  };
}

function asAccount({ uid, gid }: ServerAccount): string[] {
  return [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups'];
}

async function firstChild(pid: number): Promise<number> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  for (;;) {
    const [first] = read(`/proc/${pid}/task/${pid}/children`).split(' ').filter(Boolean);
    if (first && read(`/proc/${first}/cmdline`).startsWith('bash')) return Number(first);
    if (performance.now() > deadline) throw new Error('unshare started nothing');
    await delay(10);
  }
}

/** All processes on the machine but the first one. */
function processesOf(init: number): { pid: number; program: Program | undefined }[] {
  const namespace = link(`/proc/${init}/ns/pid`);
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== init && link(`/proc/${name}/ns/pid`) === namespace)
    .map((name) => ({ pid: Number(name), program: programOf(name) }));
}

function programOf(pid: string): Program | undefined {
  const executable = link(`/proc/${pid}/exe`);
  if (executable.endsWith('/postgres')) return 'postgres';
  if (executable.endsWith('/etcd')) return 'etcd';
  return /python.*patroni/.test(read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ')) ? 'patroni' : undefined;
}

function link(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return ''; // it has ended
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
