// RabbitMQ in a container of this clone's own: named after its folder, data in a volume, port on loopback. Started
// again by the next run with the same data. Uses the `docker` command, so contexts and DOCKER_HOST are honoured.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { probeBroker } from './amqp-probe.ts';
import { freePort } from './free-port.ts';

const IMAGE = 'rabbitmq:4-management';
const ENGINE_TIMEOUT_MS = 5_000;
// How long a fresh `npm start` can wait. A longer pull is better done once by hand.
const PULL_TIMEOUT_MS = 60_000;
const COMMAND_TIMEOUT_MS = 30_000;
const READY_TIMEOUT_MS = 120_000;
const PROBE_TIMEOUT_MS = 5_000;
const PROBE_INTERVAL_MS = 200;
const STOP_GRACE_SECONDS = 20;

export interface DockerBroker {
  url: string;
  version: string;
  name: string;
  stop: () => Promise<void>;
}

/** The container and the volume of this clone. */
const nameOf = (dir: string) => `highload-balance-${createHash('sha256').update(dir).digest('hex').slice(0, 12)}`;

/** Removes the container of earlier runs and its data, where there is Docker. */
export async function removeDockerBroker(dir: string): Promise<void> {
  const name = nameOf(dir);
  const engine = await docker(['version', '--format', '{{.Server.Version}}'], ENGINE_TIMEOUT_MS);
  if (engine.code !== 0) return;
  await docker(['rm', '--force', name], COMMAND_TIMEOUT_MS);
  await docker(['volume', 'rm', '--force', name], COMMAND_TIMEOUT_MS);
}

/** The broker, or why Docker cannot provide one. */
export async function startDockerBroker(options: {
  dir: string;
  /** Preferred port on loopback when the container is made. */
  port: number;
  say: (line: string) => void;
}): Promise<DockerBroker | { unavailable: string }> {
  const { say } = options;
  const engine = await docker(['version', '--format', '{{.Server.Version}}'], ENGINE_TIMEOUT_MS);
  if (engine.code !== 0) return { unavailable: engine.reason };
  const missing = await pullImage(say);
  if (missing) return { unavailable: missing };
  const name = nameOf(options.dir);
  const started = await startContainer(name, options.port, say);
  if (started) return { unavailable: started };
  const url = await urlOfContainer(name);
  if (!url) return { unavailable: `the container ${name} publishes no port` };
  const ready = await untilReady(url, name, say);
  if ('unavailable' in ready) {
    await docker(['stop', '--time', '1', name], COMMAND_TIMEOUT_MS);
    return ready;
  }
  return {
    url,
    version: ready.version,
    name,
    stop: async () => {
      await docker(['stop', '--time', String(STOP_GRACE_SECONDS), name], COMMAND_TIMEOUT_MS);
    },
  };
}

/** Undefined when the image is there afterwards, else the reason. */
async function pullImage(say: (line: string) => void): Promise<string | undefined> {
  if ((await docker(['image', 'inspect', IMAGE], ENGINE_TIMEOUT_MS)).code === 0) return undefined;
  say(`RabbitMQ: pulling the Docker image ${IMAGE} (at most ${PULL_TIMEOUT_MS / 1000} s)`);
  const pull = await docker(['pull', '--quiet', IMAGE], PULL_TIMEOUT_MS);
  if (pull.code === 0) return undefined;
  return `the image ${IMAGE} could not be pulled (${pull.reason}); "docker pull ${IMAGE}" retries without a time limit`;
}

/** Undefined when the container runs afterwards, else the reason. */
async function startContainer(name: string, port: number, say: (line: string) => void): Promise<string | undefined> {
  const state = await docker(['container', 'inspect', '--format', '{{.State.Running}}', name], COMMAND_TIMEOUT_MS);
  if (state.code === 0) {
    if (state.output.trim() === 'true') return undefined;
    say('RabbitMQ: starting the Docker container of the earlier run');
    if ((await docker(['start', name], COMMAND_TIMEOUT_MS)).code === 0) return undefined;
    // Its port was taken meanwhile. The data is in the volume, so the container itself can be
    // removed.
    await docker(['rm', '--force', name], COMMAND_TIMEOUT_MS);
  }
  say('RabbitMQ: starting a Docker container');
  const run = await docker(
    [
      ...['run', '--detach', '--name', name],
      // The node keeps its data under the host name, which would otherwise change with each container.
      ...['--hostname', 'balance', '--volume', `${name}:/var/lib/rabbitmq`],
      ...['--publish', `127.0.0.1:${await freePort(port)}:5672`, IMAGE],
    ],
    COMMAND_TIMEOUT_MS,
  );
  if (run.code === 0) return undefined;
  await docker(['rm', '--force', name], COMMAND_TIMEOUT_MS);
  return run.reason;
}

async function urlOfContainer(name: string): Promise<string | undefined> {
  const { output } = await docker(['port', name, '5672/tcp'], COMMAND_TIMEOUT_MS);
  const port = /127\.0\.0\.1:(\d+)/.exec(output)?.[1];
  return port && `amqp://guest:guest@127.0.0.1:${port}`;
}

async function untilReady(
  url: string,
  name: string,
  say: (line: string) => void,
): Promise<{ version: string } | { unavailable: string }> {
  const startedAt = performance.now();
  let saidAtSeconds = 0;
  for (;;) {
    const probe = await probeBroker(url, PROBE_TIMEOUT_MS);
    if (probe.answer === 'ready') return { version: probe.version };
    if (probe.answer === 'refused')
      return { unavailable: `the container ${name} refuses the connection: ${probe.reason}` };
    const elapsedMs = performance.now() - startedAt;
    if (elapsedMs > READY_TIMEOUT_MS) return { unavailable: `the container ${name} does not answer: ${probe.reason}` };
    const seconds = Math.floor(elapsedMs / 1000);
    if (seconds >= saidAtSeconds + 10) {
      saidAtSeconds = seconds;
      const state = await docker(['container', 'inspect', '--format', '{{.State.Running}}', name], COMMAND_TIMEOUT_MS);
      if (state.output.trim() === 'false')
        return { unavailable: `the container ${name} ended; see "docker logs ${name}"` };
      say(`RabbitMQ: the container is still starting (${seconds} s)`);
    }
    await delay(PROBE_INTERVAL_MS);
  }
}

function docker(args: string[], timeoutMs: number): Promise<{ code: number; output: string; reason: string }> {
  return new Promise((resolve) => {
    // A session of its own: Ctrl-C must not interrupt a command whose effect we have to know.
    const child = spawn('docker', args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
    });
    let output = '';
    let errors = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk));
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk));
    child.once('error', (error: NodeJS.ErrnoException) => {
      const reason = error.code === 'ENOENT' ? 'the command "docker" is not installed' : error.message;
      resolve({ code: 1, output: '', reason });
    });
    child.once('close', (code, signal) => {
      const last = errors.trim().split('\n').at(-1);
      const reason = signal ? `no answer within ${timeoutMs / 1000} s` : last || `exit code ${code}`;
      resolve({ code: code ?? 1, output, reason });
    });
  });
}
