// One PostgreSQL and one RabbitMQ for all test files of a run; each file makes a database and queue
// names of its own. The processes that tests start share a compile cache.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { TestProject } from 'vitest/node';
import { openClient } from '../../src/shared/database.ts';
import { migrate } from '../../src/shared/migrations.ts';
import {
  type Backend,
  type BackendKind,
  chooseBackend,
  closeBackends,
  fixBackend,
  folderOfThisRun,
  localBackendInstead,
} from './backends.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Superuser, database `postgres`. */
    postgresUrl: string;
    /** A database there, migrated and otherwise empty, to be copied. */
    migratedDatabase: string;
    amqpUrl: string;
    backend: BackendKind;
  }
}

const PROJECT_WITHOUT_SERVERS = 'unit';

export default async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  if (project.vitest.projects.every(({ name }) => name === PROJECT_WITHOUT_SERVERS)) return undefined;
  const say = console.log;
  process.env.NODE_COMPILE_CACHE = folderOfThisRun();
  const compiled = Promise.all(['api', 'worker'].map(compile));
  const chosen = await chooseBackend(say);
  let { backend, reason } = chosen;
  let servers: Awaited<ReturnType<typeof startServers>>;
  try {
    servers = await startServers(backend);
  } catch (error) {
    if (backend.kind === 'local' || process.env.TEST_BACKEND === 'docker') throw error;
    reason = `a container failed to start: ${(error as Error).message}`;
    backend = localBackendInstead(say);
    servers = await startServers(backend);
  }
  fixBackend(backend.kind);
  await compiled;
  const broker = servers.broker.description ? `; ${servers.broker.description}` : '';
  say(`Backends: ${backend.description}${broker} - ${reason}`);
  project.provide('postgresUrl', servers.postgres.url);
  project.provide('migratedDatabase', await createMigrated(servers.postgres.url));
  project.provide('amqpUrl', servers.broker.url);
  project.provide('backend', backend.kind);
  return async () => {
    await Promise.all([servers.postgres.stop(), servers.broker.stop()]);
    await closeBackends();
  };
}

async function startServers(backend: Backend) {
  const [postgres, broker] = await Promise.all([backend.startPostgres(), backend.startSharedBroker()]);
  return { postgres, broker };
}

async function createMigrated(serverUrl: string): Promise<string> {
  const name = 'migrated';
  const client = await openClient(serverUrl, 'test set-up');
  await client.query(`CREATE DATABASE ${name}`);
  await client.end();
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  await migrate(url.href);
  return name;
}

/**
 * Puts the modules of a service into the compile cache: without settings it ends at once. Tests kill the services that they start, and
 * a killed process writes nothing to the cache.
 */
async function compile(service: string): Promise<void> {
  const file = fileURLToPath(new URL(`../../src/${service}/main.ts`, import.meta.url));
  const env = { PATH: process.env.PATH, NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE };
  await once(
    spawn(process.execPath, [file], { env, stdio: 'ignore', timeout: 60_000, killSignal: 'SIGKILL' }),
    'close',
  );
}
