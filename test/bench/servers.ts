// The servers of a benchmark run, its own: an embedded PostgreSQL with default settings (fsync on), and a RabbitMQ.
// They and their folder are gone afterwards, also when the run is killed.
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { findRabbitmqServer } from '../../src/local/machine-broker.ts';
import { startPostgres } from '../../src/local/postgres.ts';
import { type PrivateBroker, startPrivateBroker } from '../../src/local/private-broker.ts';
import { knownProcess } from '../../src/local/process-end.ts';
import { findBroker } from '../../src/local/rabbitmq.ts';
import { canReach, serverAccount } from '../../src/local/server-account.ts';
import type { KnownProcess } from '../../src/shared/runtime.ts';
import { type Reaper, startReaper } from '../support/reaper.ts';
import { processesNamed } from './cpu.ts';

export interface Postgres {
  /** Superuser, database `postgres`. */
  url: string;
  pid: number;
}

export interface Broker {
  url: string;
  /** Version and kind. */
  description: string;
  pids: number[];
  /** Runs rabbitmqctl on it; undefined where it is not a node of our own. */
  control?: PrivateBroker['control'];
}

export interface BenchServers {
  reaper: Reaper;
  /** For logs and files of the run. */
  folder: string;
  postgres: Postgres;
  stop(): Promise<void>;
}

export async function startPostgresOnly(): Promise<BenchServers> {
  const reaper = startReaper();
  const folder = temporaryFolder(reaper);
  const onSpawn = (process: KnownProcess) => reaper.add({ process });
  const server = await startPostgres({ dir: folder, sharedDir: folder, durable: true, onSpawn });
  return {
    reaper,
    folder,
    postgres: { url: server.url, pid: server.process.pid },
    async stop() {
      await server.stop();
      await reaper.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export async function startServers(say: (line: string) => void): Promise<BenchServers & { broker: Broker }> {
  const servers = await startPostgresOnly();
  try {
    const { stop: stopBroker, ...broker } = await startBroker(servers, say);
    return {
      ...servers,
      broker,
      async stop() {
        await stopBroker();
        await servers.stop();
      },
    };
  } catch (error) {
    await servers.stop();
    throw error;
  }
}

async function startBroker(
  { reaper, folder }: BenchServers,
  say: (line: string) => void,
): Promise<Broker & { stop(): Promise<void> }> {
  const onSpawn = (process: KnownProcess) => reaper.add({ process });
  if (findRabbitmqServer()) {
    const node = await startPrivateBroker({ dir: path.join(folder, 'rabbitmq'), onSpawn });
    const description = `${node.version}, a private node`;
    return { url: node.url, description, pids: [node.pid], stop: node.stop, control: node.control };
  }
  const { url, description, stop } = await findBroker({ dir: folder, say, onSpawn });
  return { url, description, pids: processesNamed('beam.smp').filter((pid) => knownProcess(pid)), stop };
}

// The account that the server runs under has to be able to enter it, whatever TMPDIR says.
function temporaryFolder(reaper: Reaper): string {
  const parents = [tmpdir(), '/tmp', '/var/tmp'];
  const parent = parents.find((folder) => canReach(serverAccount(), folder)) ?? tmpdir();
  const folder = mkdtempSync(path.join(parent, 'highload-balance-bench-'));
  chmodSync(folder, 0o755);
  reaper.add({ folder });
  return folder;
}
