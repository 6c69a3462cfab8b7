// Installs Debian's rabbitmq-server. Asks first if there is a terminal, otherwise announces it;
// only as root, and only if INSTALL is not "no".
import { spawn } from 'node:child_process';
import type { Confirm } from './confirm.ts';
import { findProgram, findRabbitmqServer } from './machine-broker.ts';

const UPDATE_TIMEOUT_MS = 120_000;
const INSTALL_TIMEOUT_MS = 300_000;
const PROGRESS_INTERVAL_MS = 10_000;

/** Undefined if rabbitmq-server is there afterwards, otherwise the reason. */
export async function installRabbitmqServer(
  env: NodeJS.ProcessEnv,
  say: (line: string) => void,
  confirm?: Confirm,
): Promise<string | undefined> {
  const aptGet = findProgram('apt-get');
  if (!aptGet) return 'this system has no apt-get';
  if (process.getuid?.() !== 0)
    return 'installing the package rabbitmq-server requires root ("sudo apt-get install rabbitmq-server")';
  if (env.INSTALL === 'no') return 'INSTALL=no';
  const question = 'There is no RabbitMQ on this machine. Install the Debian package rabbitmq-server with apt-get?';
  if (confirm && !(await confirm(question, 'yes'))) return 'you declined to install it';
  say('RabbitMQ: installing the Debian package rabbitmq-server (INSTALL=no prevents this)');
  const update = await run(aptGet, ['update', '-qq'], UPDATE_TIMEOUT_MS, say);
  if (update) say(`RabbitMQ: apt-get update: ${update}`); // older lists may be enough
  const install = ['install', '-y', '-qq', '--no-install-recommends', 'rabbitmq-server'];
  const failure = await run(aptGet, install, INSTALL_TIMEOUT_MS, say);
  // The package's own start of its service may fail (no init system in a container) or succeed:
  // either is fine, as long as the program is there.
  return findRabbitmqServer() ? undefined : `apt-get install rabbitmq-server: ${failure ?? 'nothing was installed'}`;
}

function run(
  program: string,
  args: string[],
  timeoutMs: number,
  say: (line: string) => void,
): Promise<string | undefined> {
  return new Promise((resolve) => {
    const startedAt = performance.now();
    const progress = setInterval(() => {
      say(`RabbitMQ: apt-get ${args[0]} is still running (${Math.round((performance.now() - startedAt) / 1000)} s)`);
    }, PROGRESS_INTERVAL_MS);
    // A session of its own: Ctrl-C in the middle would leave a half-installed package behind.
    const child = spawn(program, args, {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
      timeout: timeoutMs,
    });
    let errors = '';
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk));
    const end = (reason: string | undefined) => {
      clearInterval(progress);
      resolve(reason);
    };
    child.once('error', (error) => end(error.message));
    child.once('close', (code, signal) => {
      if (code === 0) return end(undefined);
      end(
        signal ? `did not end within ${timeoutMs / 1000} s` : (errors.trim().split('\n').at(-1) ?? `exit code ${code}`),
      );
    });
  });
}
