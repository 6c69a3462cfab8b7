// npm run test:attacks: the tools that attackers use, against the running service. docs/testing.md
// describes it.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { commandLine } from '../../src/cli/command-line.ts';

const { only } = commandLine(
  { only: { type: 'string' } },
  `usage: npm run test:attacks -- [--only PATTERN]

Attacks the service with slowhttptest, sqlmap, ffuf and wapiti, with keys and with AUTH=off. Takes 20 minutes.

  --only PATTERN  the attacks whose names match this regular expression`,
);

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const pattern = only === undefined ? [] : ['--testNamePattern', only];
const { status } = spawnSync(
  `${ROOT}node_modules/.bin/vitest`,
  ['run', '--config', 'test/attacks/vitest.config.ts', ...pattern],
  { cwd: ROOT, stdio: 'inherit' },
);
process.exitCode = status ?? 1;
