// Processes of the benchmark: started with an environment, ready when they say so, ended at the latest with the run,
// however that ends.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { knownProcess } from '../../src/local/process-end.ts';
import { SERVICE_NODE_OPTIONS } from '../../src/shared/node-options.mjs';
import type { Reaper } from '../support/reaper.ts';

const READY_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 30_000;
const LOG_TAIL_CHARACTERS = 2000;

export interface ProcessKeeper {
  /** Has the process ended with the run. */
  keep(child: ChildProcess): void;
}

export function keeperOf(reaper: Reaper): ProcessKeeper {
  return {
    keep(child) {
      const known = child.pid === undefined ? undefined : knownProcess(child.pid);
      if (known) reaper.add({ process: known });
    },
  };
}

export interface Started {
  pid: number;
  child: ChildProcess;
  /** Whether it still runs. */
  alive(): boolean;
  /** SIGKILL: whatever it serves is made for that. */
  kill(): Promise<void>;
  /** SIGTERM, and SIGKILL when that does not end it in time. */
  stop(): Promise<void>;
}

export interface StartOptions {
  /** Path from this folder. */
  script: string;
  env: Record<string, string>;
  logFile: string;
  nodeOptions?: string[];
}

/** Returns when the process has sent 'ready'. @throws with the end of its log when it does not. */
export async function startProcess(keeper: ProcessKeeper, options: StartOptions): Promise<Started> {
  mkdirSync(path.dirname(options.logFile), { recursive: true });
  const log = openSync(options.logFile, 'a');
  const script = fileURLToPath(new URL(options.script, import.meta.url));
  const child = spawn(process.execPath, [...SERVICE_NODE_OPTIONS, ...(options.nodeOptions ?? []), script], {
    env: { PATH: process.env.PATH, NODE_ENV: 'production', LOG_LEVEL: 'warn', ...options.env },
    stdio: ['ignore', log, log, 'ipc'],
    detached: true, // Ctrl-C reaches it through us
  });
  closeSync(log);
  keeper.keep(child);
  const exited = once(child, 'exit');
  const outcome = await Promise.race([
    once(child, 'message').then(() => 'ready' as const),
    exited.then(() => 'ended' as const),
    delay(READY_TIMEOUT_MS, 'silent' as const, { ref: false }),
  ]);
  if (outcome !== 'ready') {
    child.kill('SIGKILL');
    const said = readFileSync(options.logFile, 'utf8').slice(-LOG_TAIL_CHARACTERS);
    throw new Error(`${options.script} ${outcome === 'ended' ? 'ended early' : 'did not get ready'}:\n${said}`);
  }
  const alive = () => child.exitCode === null && child.signalCode === null;
  const kill = async () => {
    child.kill('SIGKILL');
    if (alive()) await exited;
  };
  return {
    pid: child.pid as number,
    child,
    alive,
    kill,
    async stop() {
      child.kill('SIGTERM');
      if (!alive()) return;
      await Promise.race([exited, delay(STOP_TIMEOUT_MS, undefined, { ref: false })]);
      if (alive()) await kill();
    },
  };
}
