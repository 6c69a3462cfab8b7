#!/usr/bin/env node
// npx highload-balance COMMAND: one name for all that can be run. Each command is a file of its own, which gets the
// arguments, the signals and the terminal, and whose exit code this is. Built-ins only and plain JavaScript, because it runs
// on the machine's own Node (>= 18) and finds the right one itself.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { SERVICE_NODE_OPTIONS } from '../shared/node-options.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const NODE_MAJOR = 24;

const COMMANDS = {
  start: ['src/local/main.ts', 'everything on this machine: PostgreSQL, RabbitMQ, API, worker'],
  migrate: ['src/cli/migrate.ts', 'bring the database to the schema of this release'],
  api: ['src/api/main.ts', 'the API, with its relay'],
  worker: ['src/worker/main.ts', 'the worker, which writes the ledger'],
  verify: ['src/cli/verify.ts', 'prove that balances, outbox, ledger and hash chains agree'],
  heads: ['src/cli/heads.ts', 'print the heads of the hash chains, to be kept elsewhere'],
  keys: ['src/cli/keys.ts', 'create, list and revoke API keys'],
  'dead-letters': ['src/cli/dead-letters.ts', 'list what the worker refused, put it back, discard it'],
  replay: ['src/cli/replay.ts', 'publish past changes again, for a new subscriber or a lost copy'],
};

const HELP = `highload-balance COMMAND [options]

${Object.entries(COMMANDS)
  .map(([name, [, what]]) => `  ${name.padEnd(14)}${what}`)
  .join('\n')}

  --help        this, or behind a command what it takes
  --version

Settings come from the environment: DATABASE_URL, AMQP_URL and others, see docs/operations.md. Without them the commands for
operators use the system that \`start\` runs in this folder. Exit codes: 0 done, 1 refused or not proven, 2 called in a wrong way,
130 interrupted.`;

/** Of api and worker, which take no options. */
const SERVICES = new Set(['start', 'api', 'worker', 'migrate']);

const [name, ...rest] = process.argv.slice(2);
if (name === undefined || name === '--help' || name === 'help') end(name === undefined ? 2 : 0, HELP);
else if (name === '--version') end(0, JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')).version);
else if (!Object.hasOwn(COMMANDS, name)) end(2, `There is no command ${name}.\n\n${HELP}`);
else if (SERVICES.has(name) && rest.includes('--help'))
  end(
    0,
    `highload-balance ${name}: ${COMMANDS[name][1]}.\n\nIt takes no options, only settings: docs/operations.md lists them.`,
  );
else if (SERVICES.has(name) && rest.length > 0)
  end(2, `${name} takes no options, only settings from the environment: leave ${rest.join(' ')} out.`);
else run(COMMANDS[name][0], rest, name === 'api' || name === 'worker' ? SERVICE_NODE_OPTIONS : []);

function end(exitCode, text) {
  process.exitCode = exitCode;
  (exitCode === 0 ? console.log : console.error)(text);
}

function run(file, args, options) {
  const node = nodeOfThisRelease();
  if (node === undefined)
    return end(1, `This needs Node ${NODE_MAJOR}, and is ${process.version}: run npm ci in ${ROOT}, which brings it.`);
  const child = spawn(node, [...options, path.join(ROOT, file), ...args], { stdio: 'inherit' });
  // The terminal sends Ctrl-C to both; whoever sends a signal to this process alone means the command.
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  process.on('SIGINT', () => {});
  child.once('error', (error) => end(1, error.message));
  child.once('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
}

/** The one that came with the dependencies, or this one where it is new enough. */
function nodeOfThisRelease() {
  const own = path.join(ROOT, 'node_modules', '.bin', 'node');
  if (existsSync(own)) return own;
  return Number(process.versions.node.split('.')[0]) >= NODE_MAJOR ? process.execPath : undefined;
}
