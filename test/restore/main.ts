// npm run test:restore: follows the runbooks of docs/restore.md on real servers. docs/testing.md
// describes it.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { commandLine } from '../../src/cli/command-line.ts';
import { findProgram, findRabbitmqServer } from '../../src/local/machine-broker.ts';
import { programs } from './postgres.ts';

const { only } = commandLine(
  { only: { type: 'string' } },
  `usage: npm run test:restore -- [--only PATTERN]

Follows each runbook of docs/restore.md with the commands of the page, under traffic, on servers of its own. Needs these
packages of Debian: postgresql rabbitmq-server curl. Nothing else on the machine is touched, and nothing is left.

  --only PATTERN  the runbooks whose titles match this regular expression`,
);

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const missing = Object.entries({
  postgresql: programs,
  'rabbitmq-server': findRabbitmqServer(),
  curl: findProgram('curl'),
}).flatMap(([name, found]) => (found ? [] : name));

if (missing.length > 0) {
  console.error(`npm run test:restore needs packages of Debian: apt-get install ${missing.join(' ')}`);
  process.exitCode = 1;
} else {
  const pattern = only === undefined ? [] : ['--testNamePattern', only];
  const args = ['run', '--config', 'test/restore/vitest.config.ts', ...pattern];
  const { status } = spawnSync(`${ROOT}node_modules/.bin/vitest`, args, { cwd: ROOT, stdio: 'inherit' });
  process.exitCode = status ?? 1;
}
