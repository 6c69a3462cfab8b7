#!/usr/bin/env node
// npx highload-balance COMMAND: one name for everything that can be run. Each command is a file of
// its own, which gets the arguments, the signals and the terminal, and whose exit code this is:
// TypeScript in a clone, what was built of it in the package of npm. Built-ins only and plain
// JavaScript, because it runs on the machine's own Node (>= 18) and finds the right one itself.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { SERVICE_NODE_OPTIONS } from '../shared/node-options.mjs';
import { onceNpmIsGone } from '../shared/npm-gone.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const NODE_MAJOR = 24;
const IS_CLONE = existsSync(path.join(ROOT, 'src', 'api', 'main.ts'));

const EVERY_COMMAND = {
  start: ['src/local/main.ts', 'everything on this machine: PostgreSQL, RabbitMQ, API, worker'],
  migrate: ['src/cli/migrate.ts', 'bring the database to the schema of this release'],
  api: ['src/api/main.ts', 'the API, with its relay'],
  worker: ['src/worker/main.ts', 'the worker, which writes the ledger'],
  verify: ['src/cli/verify.ts', 'verify that balances, outbox, ledger and hash chains agree'],
  heads: ['src/cli/heads.ts', 'print the heads of the hash chains, to keep elsewhere'],
  logins: ['src/cli/logins.ts', 'create the login roles of the processes, and set their passwords'],
  keys: ['src/cli/keys.ts', 'create, list and revoke API keys'],
  'dead-letters': ['src/cli/dead-letters.ts', 'list, put back or discard messages that the worker refused'],
  restored: ['src/cli/restored.ts', 'begin a new epoch by hand, after the database lost commits'],
  compare: ['src/cli/compare.ts', 'find changes that consumers have seen and this database lacks'],
  replay: ['src/cli/replay.ts', 'publish past changes again, for a new subscriber or a lost copy'],
  subscribers: ['src/cli/subscribers.ts', 'list the queues of subscribers, deliver what one missed while put aside'],
};

/** In the package it is compiled. */
const scriptOf = (file) => path.join(ROOT, IS_CLONE ? file : file.replace(/^src/, 'dist').replace(/ts$/, 'js'));

/** The image of the containers has no `start`. */
const COMMANDS = Object.fromEntries(Object.entries(EVERY_COMMAND).filter(([, [file]]) => existsSync(scriptOf(file))));

const HELP = `usage: highload-balance COMMAND [options]

${Object.entries(COMMANDS)
  .map(([name, [, what]]) => `  ${name.padEnd(14)}${what}`)
  .join('\n')}

  -h, --help     this text, or after a command its options
  -v, --version

Settings come from the environment: DATABASE_URL, AMQP_URL and others, see docs/run.md. Without them the commands for
operators use the system that \`start\` runs in this folder. In a clone, npm run COMMAND -- [options] is the same.

exit code: 0 done; 1 refused or not proven; 2 called incorrectly; 130 interrupted`;

const SERVICES = new Set(['api', 'worker']);

const isHelp = (option) => option === '--help' || option === '-h';

const [name, ...rest] = process.argv.slice(2);
if (name === undefined || isHelp(name) || name === 'help') end(name === undefined ? 2 : 0, HELP);
else if (name === '--version' || name === '-v')
  end(0, JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')).version);
else if (!Object.hasOwn(COMMANDS, name)) end(2, `There is no command ${name}.\n\n${HELP}`);
else if (SERVICES.has(name) && rest.some(isHelp)) end(0, helpOfService(name));
else if (SERVICES.has(name) && rest.length > 0)
  end(2, `${name} takes no options, only settings from the environment: remove ${rest.join(' ')}.`);
else run(COMMANDS[name][0], rest, name === 'api' || name === 'worker' ? SERVICE_NODE_OPTIONS : []);

function end(exitCode, text) {
  process.exitCode = exitCode;
  (exitCode === 0 ? console.log : console.error)(text);
}

function helpOfService(name) {
  return `usage: highload-balance ${name}

Runs ${COMMANDS[name][1]}, until SIGTERM or Ctrl-C. It takes no options, only settings from the environment: docs/run.md
lists them.`;
}

function run(file, args, options) {
  const node = nodeOfThisRelease();
  if (node === undefined) {
    const advice = IS_CLONE ? `run npm ci in ${ROOT}` : `run npm install node@${NODE_MAJOR} in your project`;
    return end(1, `This needs Node ${NODE_MAJOR}, but runs on ${process.version}: ${advice} to install it.`);
  }
  // The IPC channel lets a service notice when this process is killed.
  const stdio = ['inherit', 'inherit', 'inherit', 'ipc'];
  const child = spawn(node, [...options, scriptOf(file), ...args], { stdio });
  onceNpmIsGone(() => child.kill('SIGTERM'));
  // The terminal sends Ctrl-C to both; a signal to this process alone means the command.
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
