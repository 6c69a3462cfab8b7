// What a running `npm start` passes to the other commands of the same clone (verify, load, the
// example subscriber), so that they need no settings.
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** A process, and what distinguishes it from a later one with the same id. */
export interface KnownProcess {
  pid: number;
  identity: string;
}

export interface Runtime {
  url: string;
  databaseUrl: string;
  amqpUrl: string;
  namespace: string;
  /** Of this run; `api` and `worker` change when one is restarted. */
  processes: { start: KnownProcess; api?: KnownProcess; worker?: KnownProcess };
}

/** Else this is what was built of it, in the package of npm. */
export const IS_CLONE = import.meta.filename.endsWith('.ts');
/** What starts a local system here; undefined in the image of the containers, which has none. */
export const START_COMMAND = !IS_CLONE
  ? 'npx highload-balance start'
  : existsSync(new URL('../local/main.ts', import.meta.url))
    ? 'npm start'
    : undefined;
/** A clone, wherever it is called from; but npm replaces the folder of a package, so there the one it is called in. */
const HOME_DIR = IS_CLONE ? fileURLToPath(new URL('../../', import.meta.url)) : process.cwd();

/** The folder for everything that `npm start` keeps: DATA_DIR, else `.data` in the clone, or where the package's command is called. */
export function dataFolder(env: NodeJS.ProcessEnv = process.env): string {
  return path.resolve(env.DATA_DIR || path.join(HOME_DIR, '.data'));
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
