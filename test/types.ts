// npm run types: the compiler over the project and over the page of the console.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { takesNoOptions } from '../src/cli/command-line.ts';

takesNoOptions(`usage: npm run types

Checks the types of the whole project. Exit code 1 where one does not fit.`);

const ROOT = fileURLToPath(new URL('../', import.meta.url));
for (const project of ['.', 'src/api/console/page']) {
  const { status } = spawnSync(`${ROOT}node_modules/.bin/tsc`, ['--project', project], { cwd: ROOT, stdio: 'inherit' });
  if (status !== 0) process.exitCode = 1;
}
