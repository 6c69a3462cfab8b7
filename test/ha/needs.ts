// What npm run test:ha needs, and what to do about what is missing.
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { findProgram, findRabbitmqServer } from '../../src/local/machine-broker.ts';
import { SetupProblem } from '../../src/local/setup-problem.ts';
import { canHaveMachines } from './machine.ts';

export interface Programs {
  etcd: string;
  patroni: string;
  /** Of PostgreSQL. */
  binaries: string;
  haproxy: string;
  pgbouncer: string;
  /** Major, minor and patch. */
  patroniVersion: readonly number[];
}

const FOLDERS = ['/usr/sbin', '/usr/bin', '/usr/local/bin'];
const POSTGRES = '/usr/lib/postgresql';

/** @param patroni instead of the machine's. @throws SetupProblem that says all that is missing. */
export function findPrograms(patroni = findProgram('patroni', FOLDERS)): Programs {
  const etcd = findProgram('etcd', FOLDERS);
  const haproxy = findProgram('haproxy', FOLDERS);
  const pgbouncer = findProgram('pgbouncer', FOLDERS);
  const binaries = newestPostgres();
  const packages = Object.entries({
    patroni,
    'etcd-server': etcd,
    haproxy,
    pgbouncer,
    postgresql: binaries,
    'rabbitmq-server': findRabbitmqServer(),
  }).flatMap(([name, found]) => (found ? [] : name));
  const missing = [
    ...(process.getuid?.() === 0 ? [] : ['root: the test makes machines with addresses of their own']),
    ...(packages.length > 0 ? [`packages of Debian: apt-get install ${packages.join(' ')}`] : []),
  ];
  if (missing.length === 0 && !canHaveMachines())
    missing.push('Linux with namespaces (unshare --net --pid), which a container has only if it is privileged');
  if (missing.length > 0 || !patroni || !etcd || !haproxy || !pgbouncer || !binaries)
    throw new SetupProblem(`npm run test:ha needs\n  ${missing.join('\n  ')}`);
  return { etcd, patroni, binaries, haproxy, pgbouncer, patroniVersion: versionOf(patroni) };
}

function newestPostgres(): string | undefined {
  try {
    const [newest] = readdirSync(POSTGRES).sort((one, other) => Number(other) - Number(one));
    return newest && path.join(POSTGRES, newest, 'bin');
  } catch {
    return undefined;
  }
}

function versionOf(patroni: string): number[] {
  let said: string;
  try {
    said = execFileSync(patroni, ['--version'], { encoding: 'utf8' });
  } catch (cause) {
    throw new SetupProblem(`${patroni} does not run: ${(cause as Error).message}`, { cause });
  }
  return (/\d+(\.\d+)+/.exec(said)?.[0] ?? '0').split('.').map(Number);
}
