// A PostgreSQL data folder: created completely or not at all, and checked before a server touches
// it.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import type { PostgresBinaries } from './postgres-binaries.ts';
import type { ServerAccount } from './server-account.ts';
import { SetupProblem } from './setup-problem.ts';

// Writing a new data folder takes 1-3 s on a quiet machine; a minute means that the disk does not answer.
const INITDB_TIMEOUT_MS = 120_000;

/** Refuses, in one sentence, a folder that this server cannot continue. */
export function checkCluster(dataDir: string, major: string): 'absent' | 'ready' {
  if (!existsSync(dataDir)) return 'absent';
  const versionFile = path.join(dataDir, 'PG_VERSION');
  if (!existsSync(versionFile)) {
    if (readdirSync(dataDir).length === 0) {
      rmSync(dataDir, { recursive: true });
      return 'absent';
    }
    throw new SetupProblem(`${dataDir} is not a PostgreSQL data folder: move it away and start again.`);
  }
  const found = readFileSync(versionFile, 'utf8').trim();
  if (found !== major) {
    throw new SetupProblem(
      `${dataDir} was written by PostgreSQL ${found}, this is PostgreSQL ${major}: move it away to start empty, ` +
        'or carry it over with pg_dump and set DATABASE_URL meanwhile.',
    );
  }
  return 'ready';
}

/**
 * Creates the data folder with superuser `postgres`. It is written aside and renamed at the end, so
 * that a crash leaves no partial one; remains of an earlier crash are removed.
 */
export async function createCluster(
  binaries: PostgresBinaries,
  account: ServerAccount,
  dataDir: string,
  options: { password: string; durable: boolean },
): Promise<void> {
  const parent = path.dirname(dataDir);
  const asidePrefix = `${path.basename(dataDir)}.new-`;
  for (const name of readdirSync(parent)) {
    if (name.startsWith(asidePrefix)) rmSync(path.join(parent, name), { recursive: true, force: true });
  }
  const aside = path.join(parent, asidePrefix + randomBytes(4).toString('hex'));
  const passwordFile = `${aside}.password`;
  try {
    mkdirSync(aside, { mode: 0o700 });
    writeFileSync(passwordFile, `${options.password}\n`, { mode: 0o600 });
    for (const file of [aside, passwordFile]) giveTo(account, file);
    await initdb(binaries, account, [
      `--pgdata=${aside}`,
      '--username=postgres',
      `--pwfile=${passwordFile}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      // Sorts by code point on every system and never changes with a system upgrade, which would corrupt indexes.
      '--locale-provider=builtin',
      '--builtin-locale=C.UTF-8',
      '--locale=C',
      ...(options.durable ? [] : ['--no-sync']),
    ]);
    renameSync(aside, dataDir);
  } catch (error) {
    rmSync(aside, { recursive: true, force: true });
    throw error;
  } finally {
    rmSync(passwordFile, { force: true });
  }
}

function giveTo(account: ServerAccount, file: string): void {
  if (account.uid !== undefined && account.gid !== undefined) chownSync(file, account.uid, account.gid);
  chmodSync(file, statSync(file).isDirectory() ? 0o700 : 0o600);
}

function initdb(binaries: PostgresBinaries, account: ServerAccount, args: string[]): Promise<void> {
  const { uid, gid } = account;
  const child = spawn(binaries.initdb, args, {
    cwd: '/',
    env: { PATH: process.env.PATH ?? '', LC_ALL: 'C' },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A session of its own: we handle Ctrl-C ourselves, once the data folder is complete or
    // removed.
    detached: true,
    timeout: INITDB_TIMEOUT_MS,
    killSignal: 'SIGKILL',
    ...(uid !== undefined && gid !== undefined && { uid, gid }),
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk));
  child.stderr.on('data', (chunk: Buffer) => (output += chunk));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, killedBy) => {
      if (code === 0) return resolve();
      if (isDiskFull(output)) {
        return reject(new SetupProblem('The disk is full: make room, or set DATA_DIR to a folder on another one.'));
      }
      const said = /(?:error|FATAL|could not)[^\n]*/.exec(output)?.[0] ?? output.trim();
      reject(
        new SetupProblem(`PostgreSQL could not create its data folder: ${killedBy ? `killed by ${killedBy}` : said}`),
      );
    });
  });
}

/** Whether PostgreSQL reports that in its output. */
export function isDiskFull(output: string): boolean {
  return /No space left on device|wrote only \d+ of \d+ bytes/.test(output);
}
