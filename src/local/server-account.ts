// Which account PostgreSQL runs under, and what that account can reach. PostgreSQL refuses to run as root, and
// another account may not be able to enter a clone below root's home folder.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { SetupProblem } from './setup-problem.ts';

/** `uid` and `gid` as spawn takes them; absent when the server simply runs as ourselves. */
export interface ServerAccount {
  name: string;
  uid?: number;
  gid?: number;
}

// In this order: the account that PostgreSQL packages use, then the one every system has.
const ACCOUNTS_FOR_ROOT = ['postgres', 'nobody'];

export function serverAccount(): ServerAccount {
  if (process.getuid?.() !== 0) return { name: 'you' };
  const accounts = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  for (const wanted of ACCOUNTS_FOR_ROOT) {
    const found = accounts.find((fields) => fields[0] === wanted);
    if (found) return { name: wanted, uid: Number(found[2]), gid: Number(found[3]) };
  }
  throw new SetupProblem(
    'PostgreSQL refuses to run as root and this machine has neither a "postgres" nor a "nobody" account: ' +
      'run the command as another user, or set DATABASE_URL.',
  );
}

/** Asks the system itself, as that account: modes, access lists and mounts all matter. */
export function canReach(account: ServerAccount, path: string, access: 'enter' | 'execute' = 'enter'): boolean {
  const test = access === 'enter' ? 'test -d "$0" && test -x "$0"' : 'test -f "$0" && test -x "$0"';
  const { uid, gid } = account;
  const options = { cwd: '/', stdio: 'ignore' as const, ...(uid !== undefined && gid !== undefined && { uid, gid }) };
  return spawnSync('/bin/sh', ['-c', test, path], options).status === 0;
}
