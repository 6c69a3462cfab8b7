// Closed-loop load over keep-alive connections from one process of its own: wrk where it is installed (a tenth of the
// CPU, which the servers share), else autocannon.
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { findProgram } from '../../src/local/machine-broker.ts';
import { endedChildrenSeconds } from './cpu.ts';
import type { ProcessKeeper } from './processes.ts';

export interface Load {
  url: string;
  connections: number;
  seconds: number;
  /** Account ids, or pairs of payer and payee, one a line; requests go through them in order, again and again. */
  accountsFile: string;
  operation: 'update' | 'transfer' | 'hold';
  /** 1 is a single one, more is bulk. */
  operationsPerRequest: number;
  /** Start of the idempotency keys and of the ids of holds, unique to this load; undefined sends no keys. */
  keyPrefix: string | undefined;
}

export interface LoadResult {
  /** Requests that got an answer in time. */
  answered: number;
  /** Of them: neither 200 nor 201. */
  notOk: number;
  /** Connection errors and timeouts. */
  broken: number;
  seconds: number;
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
  cpuSeconds: number;
}

export type DriverName = 'wrk' | 'autocannon';
export type Driver = (load: Load) => Promise<LoadResult>;

/** Beyond the duration, for the last answers to come or not. */
const END_TIMEOUT_MS = 20_000;

const fileOf = (name: string) => fileURLToPath(new URL(name, import.meta.url));

export function chooseDriver(keeper: ProcessKeeper, wanted?: string): { name: DriverName; run: Driver } {
  const wrk = wanted === 'autocannon' ? undefined : findProgram('wrk');
  if (wanted === 'wrk' && !wrk) throw new Error('wrk is not installed');
  const name = wrk ? 'wrk' : 'autocannon';
  return {
    name,
    async run(load) {
      const { url, connections, seconds, accountsFile, operation, operationsPerRequest, keyPrefix = '-' } = load;
      const what = [accountsFile, operation, String(operationsPerRequest), keyPrefix];
      const [program, args] = wrk
        ? [wrk, ['-t1', `-c${connections}`, `-d${seconds}s`, '-s', fileOf('wrk.lua'), url, '--', ...what]]
        : [process.execPath, [fileOf('cannon.ts'), url, String(connections), String(seconds), ...what]];
      const cpuBefore = endedChildrenSeconds();
      const output = await run(keeper, program, args, seconds * 1000 + END_TIMEOUT_MS);
      const result = /^RESULT (.*)$/m.exec(output)?.[1];
      if (!result) throw new Error(`${name} failed:\n${output}`);
      return {
        ...(JSON.parse(result) as Omit<LoadResult, 'cpuSeconds'>),
        cpuSeconds: endedChildrenSeconds() - cpuBefore,
      };
    },
  };
}

function run(keeper: ProcessKeeper, program: string, args: string[], timeoutMs: number): Promise<string> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: timeoutMs, killSignal: 'SIGKILL' });
  keeper.keep(child);
  let output = '';
  child.stdout.on('data', (chunk) => (output += chunk));
  child.stderr.on('data', (chunk) => (output += chunk));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => resolve(output));
  });
}
