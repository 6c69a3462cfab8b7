// One PostgreSQL and one RabbitMQ for all test files of a run; each file makes a database and queue names of its own.
import type { TestProject } from 'vitest/node';
import {
  type Backend,
  type BackendKind,
  chooseBackend,
  closeBackends,
  fixBackend,
  localBackendInstead,
} from './backends.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Superuser, database `postgres`. */
    postgresUrl: string;
    amqpUrl: string;
    backend: BackendKind;
  }
}

const PROJECT_WITHOUT_SERVERS = 'unit';

export default async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  if (project.vitest.projects.every(({ name }) => name === PROJECT_WITHOUT_SERVERS)) return undefined;
  const say = console.log;
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
  const broker = servers.broker.description ? `; ${servers.broker.description}` : '';
  say(`Backends: ${backend.description}${broker} - ${reason}`);
  project.provide('postgresUrl', servers.postgres.url);
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
