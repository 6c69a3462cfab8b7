// The servers of one scenario: the cluster, HAProxy before it, and a RabbitMQ. The service knows none of the machines.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, openSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePort } from '../../src/local/free-port.ts';
import { openPool } from '../../src/shared/database.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { closeBackends, localBackendInstead } from '../backends.ts';
import { keeperOf, type ProcessKeeper } from '../bench/processes.ts';
import { holds } from '../chaos/faults/fault.ts';
import type { Servers } from '../chaos/servers.ts';
import { temporaryFolder } from '../local-backend.ts';
import type { Reaper } from '../reaper.ts';
import { type Cluster, startCluster } from './cluster.ts';
import { type EtcdApi, haproxySettings, type Mode, PASSWORDS } from './configuration.ts';
import type { Programs } from './needs.ts';

const SERVES_TIMEOUT_MS = 20_000;

export interface ServersOptions {
  reaper: Reaper;
  programs: Programs;
  mode: Mode;
  api: EtcdApi;
  /** Called with the cluster once it is whole. */
  use: (cluster: Cluster) => void;
}

export async function startServers(options: ServersOptions, say: (line: string) => void): Promise<Servers> {
  const { reaper, programs, mode, api, use } = options;
  const keeper = keeperOf(reaper);
  const logs = mkdtempSync(path.join(tmpdir(), 'highload-balance-ha-'));
  say(`Starting three machines (${mode}, API ${api} of etcd), HAProxy and RabbitMQ`);
  const [cluster, broker] = await Promise.all([
    startCluster({ keeper, programs, folder: temporaryFolder(reaper), logs, mode, api }),
    localBackendInstead(say).startBroker(),
  ]);
  use(cluster);
  const port = await freePort();
  const haproxy = await startHaproxy(keeper, programs, logs, haproxySettings(cluster.network, port));
  const databaseUrl = `postgres://postgres:${PASSWORDS.superuser}@127.0.0.1:${port}/postgres`;
  const pool = openPool(databaseUrl, 'test', 5, { access: 'any server', statementTimeoutMs: 60_000 });
  // Until its first checks HAProxy takes every server for the primary.
  let failure: unknown;
  const isMigrated = () =>
    migrate(databaseUrl).then(
      () => true,
      (error) => {
        failure = error;
        return false;
      },
    );
  if (!(await holds(isMigrated, SERVES_TIMEOUT_MS))) throw failure;
  return {
    broker,
    databaseUrl,
    pool,
    folder: logs,
    async stop() {
      await pool.end();
      haproxy.kill('SIGTERM');
      await Promise.all([broker.stop(), once(haproxy, 'exit')]);
      await closeBackends();
    },
  };
}

async function startHaproxy(
  keeper: ProcessKeeper,
  { haproxy }: Programs,
  folder: string,
  settings: string,
): Promise<ChildProcess> {
  const file = path.join(folder, 'haproxy.cfg');
  writeFileSync(file, settings);
  const log = openSync(path.join(folder, 'haproxy.log'), 'a');
  const child = spawn(haproxy, ['-db', '-f', file], { cwd: '/', stdio: ['ignore', log, log], detached: true });
  keeper.keep(child);
  return child;
}
