// Finds the rabbitmq-server that the machine has, if any.
import { accessSync, constants, readdirSync, readFileSync, realpathSync } from 'node:fs';
import path from 'node:path';

// Where packages put the server's own start script, besides the PATH.
const FOLDERS = ['/usr/lib/rabbitmq/bin', '/opt/homebrew/sbin', '/usr/local/sbin', '/opt/rabbitmq/sbin', '/usr/sbin'];
const DEBIAN_LIBRARY = '/usr/lib/rabbitmq/lib';

/** The path of a start script that runs the node as the current user, or undefined. */
export function findRabbitmqServer(): string | undefined {
  const candidates = [...FOLDERS, ...debianVersions(), ...pathFolders()].map((dir) =>
    path.join(dir, 'rabbitmq-server'),
  );
  return candidates.find((file) => isExecutable(file) && !isWrapper(file));
}

export function findProgram(name: string, folders: readonly string[] = []): string | undefined {
  return [...pathFolders(), ...folders].map((dir) => path.join(dir, name)).find(isExecutable);
}

function pathFolders(): string[] {
  return (process.env.PATH ?? '').split(path.delimiter).filter(Boolean);
}

function debianVersions(): string[] {
  try {
    return readdirSync(DEBIAN_LIBRARY).map((version) => path.join(DEBIAN_LIBRARY, version, 'sbin'));
  } catch {
    return [];
  }
}

// Debian's wrapper switches to the account and folders of the machine's broker: it cannot run a
// node of ours.
function isWrapper(file: string): boolean {
  const real = realpathSync(file);
  return path.basename(real) === 'rabbitmq-script-wrapper' || readFileSync(real, 'utf8').includes('su rabbitmq');
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
