// PostgreSQL and RabbitMQ for tests from what `npm start` uses: embedded PostgreSQL and the
// machine's RabbitMQ, in folders that go with the run.
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePort } from '../../src/local/free-port.ts';
import { installRabbitmqServer } from '../../src/local/install-broker.ts';
import { findRabbitmqServer } from '../../src/local/machine-broker.ts';
import { startPostgres } from '../../src/local/postgres.ts';
import { startPrivateBroker } from '../../src/local/private-broker.ts';
import { signal, waitForExit } from '../../src/local/process-end.ts';
import { findBroker, type RunningBroker } from '../../src/local/rabbitmq.ts';
import { canReach, serverAccount } from '../../src/local/server-account.ts';
import { SetupProblem } from '../../src/local/setup-problem.ts';
import type { KnownProcess } from '../../src/shared/runtime.ts';
import type { Backend, BrokerOptions, DisposableBroker, DisposablePostgres } from './backends.ts';
import type { Reaper } from './reaper.ts';
import { tlsConfiguration } from './server-tls.ts';

const KILL_TIMEOUT_MS = 10_000;

export function localBackend(reaper: () => Reaper, say: (line: string) => void): Backend {
  return {
    kind: 'local',
    description: "this machine's own (embedded PostgreSQL, a RabbitMQ of the machine)",
    startPostgres: () => disposablePostgres(reaper()),
    startBroker: (options) => disposableBroker(reaper(), say, options),
    startSharedBroker: () => sharedBroker(reaper(), say),
  };
}

async function disposablePostgres(reaper: Reaper): Promise<DisposablePostgres> {
  const dir = temporaryFolder(reaper);
  const start = () =>
    startPostgres({
      dir,
      sharedDir: dir,
      portFixed: true,
      durable: false,
      maxConnections: 300,
      onSpawn: (process: KnownProcess) => reaper.add({ process }),
    });
  let server = await start();
  const end = async (name: NodeJS.Signals) => {
    signal(server.process, name);
    if (!(await waitForExit(server.process, KILL_TIMEOUT_MS))) throw new Error(`PostgreSQL survived ${name}`);
  };
  return {
    url: server.url,
    kill: () => end('SIGKILL'),
    stopImmediately: () => end('SIGQUIT'),
    start: async () => {
      server = await start();
    },
    stop: async () => {
      await server.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

async function disposableBroker(
  reaper: Reaper,
  say: (line: string) => void,
  { tls, management = false }: BrokerOptions = {},
): Promise<DisposableBroker> {
  if (!findRabbitmqServer()) {
    const missing = await installRabbitmqServer(process.env, say);
    if (missing) throw new SetupProblem(`These tests kill a broker of their own and need rabbitmq-server: ${missing}`);
  }
  const dir = temporaryFolder(reaper);
  const tlsPort = await freePort();
  const managementPort = await freePort();
  const broker = await startPrivateBroker({
    dir,
    configuration: [
      ...(tls ? tlsConfiguration(`127.0.0.1:${tlsPort}`, tls) : []),
      ...(management ? ['management.tcp.ip = 127.0.0.1', `management.tcp.port = ${managementPort}`] : []),
    ],
    plugins: management ? ['rabbitmq_management'] : [],
    onSpawn: (process) => reaper.add({ process }),
  });
  return {
    url: broker.url,
    ...(tls && { tlsPort }),
    ...(management && { managementUrl: `http://127.0.0.1:${managementPort}` }),
    kill: broker.kill,
    start: broker.start,
    restartEmpty: async () => {
      await broker.kill();
      broker.wipe();
      await broker.start();
    },
    control: async (...command) => {
      await broker.control(...command);
    },
    stop: async () => {
      // Its data goes anyway, so there is nothing to shut down in order.
      await broker.kill();
      await broker.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

async function sharedBroker(reaper: Reaper, say: (line: string) => void): Promise<RunningBroker> {
  const dir = temporaryFolder(reaper);
  const broker = await findBroker({ dir, docker: false, say, onSpawn: (process) => reaper.add({ process }) });
  return {
    ...broker,
    stop: async () => {
      await broker.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** The account that the server runs under is able to enter it, whatever TMPDIR says. */
export function temporaryFolder(reaper: Reaper): string {
  const parents = [tmpdir(), '/tmp', '/var/tmp'];
  const parent = parents.find((folder) => canReach(serverAccount(), folder)) ?? tmpdir();
  const folder = mkdtempSync(path.join(parent, 'highload-balance-test-'));
  chmodSync(folder, 0o755);
  reaper.add({ folder });
  return folder;
}
