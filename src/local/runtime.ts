// What a running `npm start` tells the other commands of the same clone (verify, load, the example subscriber), so
// that they need no settings.
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { KnownProcess } from './process-end.ts';

export interface Runtime {
  url: string;
  databaseUrl: string;
  amqpUrl: string;
  namespace: string;
  /** Of this run; `api` and `worker` change when one is restarted. */
  processes: { start: KnownProcess; api?: KnownProcess; worker?: KnownProcess };
}

const CLONE_DIR = fileURLToPath(new URL('../../', import.meta.url));

/** The folder for everything that `npm start` keeps: DATA_DIR, else `.data` in the clone. */
export function dataFolder(env: NodeJS.ProcessEnv = process.env): string {
  return path.resolve(env.DATA_DIR || path.join(CLONE_DIR, '.data'));
}

/** Undefined unless an `npm start` of this clone was there; it may have ended since. */
export function readRuntime(dir = dataFolder()): Runtime | undefined {
  const file = runtimeFile(dir);
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Runtime) : undefined;
}

/** Replaced as a whole, so that a reader never sees half of it. Holds passwords: for this user alone. */
export function writeRuntime(dir: string, runtime: Runtime): void {
  const aside = `${runtimeFile(dir)}.${process.pid}`;
  writeFileSync(aside, `${JSON.stringify(runtime, undefined, 2)}\n`, { mode: 0o600 });
  renameSync(aside, runtimeFile(dir));
}

export function removeRuntime(dir: string): void {
  rmSync(runtimeFile(dir), { force: true });
}

function runtimeFile(dir: string): string {
  return path.join(dir, 'runtime.json');
}
