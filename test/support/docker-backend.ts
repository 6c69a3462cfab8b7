// PostgreSQL and RabbitMQ for tests in containers, by Testcontainers.
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import {
  type ContainerRuntimeClient,
  GenericContainer,
  getContainerRuntimeClient,
  ImageName,
  type StartedTestContainer,
  Wait,
} from 'testcontainers';
import { probeBroker } from '../../src/local/amqp-probe.ts';
import { freePort } from '../../src/local/free-port.ts';
import type { Backend, BrokerOptions, DisposableBroker, DisposablePostgres } from './backends.ts';
import { type Reaper, RUN_LABEL } from './reaper.ts';
import { type ServerTls, tlsConfiguration } from './server-tls.ts';

const POSTGRES_IMAGE = 'postgres:18';
const RABBITMQ_IMAGE = 'rabbitmq:4-management';
const RYUK_IMAGE = process.env.RYUK_CONTAINER_IMAGE ?? 'testcontainers/ryuk:0.14.0';
const ENGINE_TIMEOUT_MS = 15_000;
const PULL_TIMEOUT_MS = 120_000;
const READY_TIMEOUT_MS = 120_000;
const READY_POLL_INTERVAL_MS = 100;
const PROBE_TIMEOUT_MS = 5_000;

/** The backend, or why Docker cannot be one. */
export async function dockerBackend(
  reaper: () => Reaper,
  say: (line: string) => void,
): Promise<Backend | { unavailable: string }> {
  // Testcontainers would pass over a DOCKER_HOST that leads nowhere and take the machine's engine.
  const socket = /^unix:\/\/(.*)/.exec(process.env.DOCKER_HOST ?? '')?.[1];
  if (socket !== undefined && !existsSync(socket)) return { unavailable: `DOCKER_HOST: there is no ${socket}` };
  let client: ContainerRuntimeClient;
  try {
    client = await within(ENGINE_TIMEOUT_MS, getContainerRuntimeClient());
    for (const image of [POSTGRES_IMAGE, RABBITMQ_IMAGE]) await ensureImage(client, image, say);
  } catch (error) {
    return { unavailable: (error as Error).message };
  }
  await settleRyuk(client, say);
  const run = randomBytes(6).toString('hex');
  reaper().add({ containersOf: run });
  const label = { [RUN_LABEL]: run };
  return {
    kind: 'docker',
    description: `Docker (${POSTGRES_IMAGE}, ${RABBITMQ_IMAGE})`,
    startPostgres: () => disposablePostgres(client, label),
    startBroker: (options) => disposableBroker(client, label, options),
    startSharedBroker: () => disposableBroker(client, label),
  };
}

async function ensureImage(client: ContainerRuntimeClient, image: string, say: (line: string) => void): Promise<void> {
  const name = ImageName.fromString(image);
  if (await within(ENGINE_TIMEOUT_MS, client.image.exists(name))) return;
  say(`Tests: pulling the Docker image ${image} (at most ${PULL_TIMEOUT_MS / 1000} s)`);
  try {
    await within(PULL_TIMEOUT_MS, client.image.pull(name));
  } catch (cause) {
    throw new Error(`the image ${image} could not be had: ${(cause as Error).message}`, { cause });
  }
}

// Testcontainers starts this helper before the first container and fails without. Our own reaper
// does its work.
async function settleRyuk(client: ContainerRuntimeClient, say: (line: string) => void): Promise<void> {
  if (process.env.TESTCONTAINERS_RYUK_DISABLED === 'true') return;
  try {
    await ensureImage(client, RYUK_IMAGE, say);
  } catch (error) {
    say(`Tests: going on without Ryuk, the clean-up helper of Testcontainers (${(error as Error).message})`);
    process.env.TESTCONTAINERS_RYUK_DISABLED = 'true';
  }
}

async function disposablePostgres(
  client: ContainerRuntimeClient,
  label: Record<string, string>,
): Promise<DisposablePostgres> {
  const port = await freePort();
  const password = randomBytes(12).toString('hex');
  const container = await new GenericContainer(POSTGRES_IMAGE)
    // Sorted as the embedded one sorts, whatever the image has.
    .withEnvironment({ POSTGRES_PASSWORD: password, LANG: 'C.UTF-8' })
    .withCommand(['-c', 'fsync=off', '-c', 'full_page_writes=off', '-c', 'max_connections=300'])
    .withSharedMemorySize(256 * 1024 * 1024)
    .withExposedPorts({ container: 5432, host: port })
    .withLabels(label)
    .withWaitStrategy(Wait.forListeningPorts())
    .start();
  const url = `postgresql://postgres:${password}@127.0.0.1:${port}/postgres`;
  await untilPostgresAnswers(url);
  return {
    url,
    ...powerSwitch(client, container, () => untilPostgresAnswers(url)),
    stopImmediately: () => endWith(client, container, 'SIGQUIT'),
    stop: () => remove(container),
  };
}

async function disposableBroker(
  client: ContainerRuntimeClient,
  label: Record<string, string>,
  { tls, management = false }: BrokerOptions = {},
): Promise<DisposableBroker> {
  const port = await freePort();
  const tlsPort = await freePort();
  const managementPort = await freePort();
  const password = randomBytes(12).toString('hex');
  const url = `amqp://balance:${password}@127.0.0.1:${port}`;
  const create = async () => {
    const container = new GenericContainer(RABBITMQ_IMAGE)
      .withEnvironment({ RABBITMQ_DEFAULT_USER: 'balance', RABBITMQ_DEFAULT_PASS: password })
      .withHostname('balance')
      .withExposedPorts({ container: 5672, host: port })
      .withLabels(label)
      .withWaitStrategy(Wait.forListeningPorts());
    if (tls) speakTls(container, tls, tlsPort);
    if (management) container.withExposedPorts({ container: 15_672, host: managementPort });
    const started = await container.start();
    await untilBrokerAnswers(url);
    return started;
  };
  let container = await create();
  return {
    url,
    ...(tls && { tlsPort }),
    ...(management && { managementUrl: `http://127.0.0.1:${managementPort}` }),
    kill: () => powerSwitch(client, container, () => untilBrokerAnswers(url)).kill(),
    start: () => powerSwitch(client, container, () => untilBrokerAnswers(url)).start(),
    restartEmpty: async () => {
      await remove(container);
      container = await create();
    },
    control: async (...command) => {
      const { exitCode, output } = await container.exec(['rabbitmqctl', ...command]);
      if (exitCode !== 0) throw new Error(`rabbitmqctl ${command.join(' ')} failed: ${output}`);
    },
    stop: () => remove(container),
  };
}

function speakTls(container: GenericContainer, tls: ServerTls, port: number): void {
  const inside = {
    caFile: '/etc/rabbitmq/ca.pem',
    certFile: '/etc/rabbitmq/cert.pem',
    keyFile: '/etc/rabbitmq/key.pem',
  };
  const files = (Object.keys(inside) as (keyof ServerTls)[]).map((file) => ({
    source: tls[file],
    target: inside[file],
  }));
  const content = `${tlsConfiguration('5671', inside).join('\n')}\n`;
  container
    .withCopyFilesToContainer(files)
    .withCopyContentToContainer([{ content, target: '/etc/rabbitmq/conf.d/50-tls.conf' }])
    .withExposedPorts({ container: 5671, host: port });
}

function powerSwitch(
  client: ContainerRuntimeClient,
  container: StartedTestContainer,
  untilAnswers: () => Promise<void>,
) {
  const handle = client.container.getById(container.getId());
  return {
    kill: () => endWith(client, container, 'SIGKILL'),
    start: async () => {
      await handle.start();
      await untilAnswers();
    },
  };
}

async function endWith(
  client: ContainerRuntimeClient,
  container: StartedTestContainer,
  signal: 'SIGKILL' | 'SIGQUIT',
): Promise<void> {
  const handle = client.container.getById(container.getId());
  await handle.kill({ signal });
  await handle.wait({ condition: 'not-running' });
}

async function remove(container: StartedTestContainer): Promise<void> {
  await container.stop({ timeout: 1_000, remove: true, removeVolumes: true });
}

async function untilPostgresAnswers(url: string): Promise<void> {
  await untilAnswers('PostgreSQL', async () => {
    const connection = new pg.Client({ connectionString: url, connectionTimeoutMillis: PROBE_TIMEOUT_MS });
    connection.on('error', () => undefined);
    try {
      await connection.connect();
      return undefined;
    } catch (error) {
      return (error as Error).message;
    } finally {
      await connection.end().catch(() => undefined);
    }
  });
}

async function untilBrokerAnswers(url: string): Promise<void> {
  await untilAnswers('RabbitMQ', async () => {
    const probe = await probeBroker(url, PROBE_TIMEOUT_MS);
    return probe.answer === 'ready' ? undefined : probe.reason;
  });
}

async function untilAnswers(what: string, reasonNotYet: () => Promise<string | undefined>): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    const reason = await reasonNotYet();
    if (reason === undefined) return;
    if (performance.now() > deadline) throw new Error(`${what} in its container does not answer: ${reason}`);
    await delay(READY_POLL_INTERVAL_MS);
  }
}

async function within<T>(timeoutMs: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs / 1000} s`)), timeoutMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
