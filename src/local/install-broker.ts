// Installs Debian's rabbitmq-server. Says so before, and only where root may and INSTALL is not "no".
import { spawn } from 'node:child_process';
import { findProgram, findRabbitmqServer } from './machine-broker.ts';

const UPDATE_TIMEOUT_MS = 120_000;
const INSTALL_TIMEOUT_MS = 300_000;
const PROGRESS_INTERVAL_MS = 10_000;

/** Undefined when rabbitmq-server is there afterwards, else the reason why not. */
export async function installRabbitmqServer(
  env: NodeJS.ProcessEnv,
  say: (line: string) => void,
): Promise<string | undefined> {
  const aptGet = findProgram('apt-get');
  if (!aptGet) return 'this system has no apt-get';
  if (process.getuid?.() !== 0)
    return 'installing the package rabbitmq-server takes root ("sudo apt-get install rabbitmq-server")';
  if (env.INSTALL === 'no') return 'INSTALL=no';
  say('RabbitMQ: installing the Debian package rabbitmq-server (INSTALL=no prevents this)');
  const update = await run(aptGet, ['update', '-qq'], UPDATE_TIMEOUT_MS, say);
  if (update) say(`RabbitMQ: apt-get update: ${update}`); // older lists may still do
  const install = ['install', '-y', '-qq', '--no-install-recommends', 'rabbitmq-server'];
  const failure = await run(aptGet, install, INSTALL_TIMEOUT_MS, say);
  // The package's own start of its service may fail (no init system in a container) or succeed: either will do,
  // what counts is whether the program is there.
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
      say(`RabbitMQ: apt-get ${args[0]} is still at work (${Math.round((performance.now() - startedAt) / 1000)} s)`);
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
      end(signal ? `no end within ${timeoutMs / 1000} s` : (errors.trim().split('\n').at(-1) ?? `exit code ${code}`));
    });
  });
}
