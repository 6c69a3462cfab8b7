// The servers of one scenario: the cluster, HAProxy before it, and a RabbitMQ. The service knows
// none of the machines.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, closeSync, openSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { freePort } from '../../src/local/free-port.ts';
import { type ServerAccount, serverAccount } from '../../src/local/server-account.ts';
import { openPool } from '../../src/shared/database.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { keeperOf, type ProcessKeeper } from '../bench/processes.ts';
import { holds } from '../chaos/faults/fault.ts';
import type { Servers } from '../chaos/servers.ts';
import { closeBackends, localBackendInstead } from '../support/backends.ts';
import { temporaryFolder } from '../support/local-backend.ts';
import type { Reaper } from '../support/reaper.ts';
import { type Cluster, startCluster } from './cluster.ts';
import { type EtcdApi, haproxySettings, type Mode, PASSWORDS, pgbouncerSettings } from './configuration.ts';
import type { Programs } from './needs.ts';

const SERVES_TIMEOUT_MS = 20_000;

export interface ServersOptions {
  reaper: Reaper;
  logs: string;
  programs: Programs;
  mode: Mode;
  api: EtcdApi;
  /** Whether the service connects through PgBouncer. */
  isPooled: boolean;
  /** Called with the cluster once it is whole. */
  use: (cluster: Cluster) => void;
}

export async function startServers(options: ServersOptions, say: (line: string) => void): Promise<Servers> {
  const { reaper, logs, programs, mode, api, isPooled, use } = options;
  const keeper = keeperOf(reaper);
  say(`Starting three machines (${mode}, API ${api} of etcd), HAProxy and RabbitMQ`);
  const [cluster, broker] = await Promise.all([
    startCluster({ keeper, programs, folder: temporaryFolder(reaper), logs, mode, api }),
    localBackendInstead(say).startBroker(),
  ]);
  use(cluster);
  const port = await freePort();
  const own: ChildProcess[] = [startHaproxy(keeper, programs, logs, haproxySettings(cluster.network, port))];
  const pooledPort = isPooled ? await freePort() : undefined;
  if (pooledPort) own.push(startPgbouncer(keeper, programs, logs, { own: pooledPort, haproxy: port }));
  const databaseUrl = `postgres://postgres:${PASSWORDS.superuser}@127.0.0.1:${pooledPort ?? port}/postgres`;
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
      const ended = own.map((child) => child.exitCode === null && once(child, 'exit'));
      for (const child of own) child.kill('SIGKILL'); // they have nothing to lose
      await Promise.all([broker.stop(), ...ended]);
      await closeBackends();
    },
  };
}

function startHaproxy(keeper: ProcessKeeper, { haproxy }: Programs, folder: string, settings: string): ChildProcess {
  const file = path.join(folder, 'haproxy.cfg');
  writeFileSync(file, settings);
  return startOwn(keeper, [haproxy, '-db', '-f', file], path.join(folder, 'haproxy.log'));
}

/** As the account of PostgreSQL: it refuses to run as root. */
function startPgbouncer(
  keeper: ProcessKeeper,
  { pgbouncer }: Programs,
  folder: string,
  ports: Parameters<typeof pgbouncerSettings>[0],
): ChildProcess {
  const userlist = path.join(folder, 'userlist.txt');
  const file = path.join(folder, 'pgbouncer.ini');
  writeFileSync(userlist, `"postgres" "${PASSWORDS.superuser}"\n`);
  writeFileSync(file, pgbouncerSettings(ports, userlist));
  chmodSync(folder, 0o755);
  return startOwn(keeper, [pgbouncer, file], path.join(folder, 'pgbouncer.log'), serverAccount());
}

function startOwn(
  keeper: ProcessKeeper,
  [program, ...args]: [string, ...string[]],
  logFile: string,
  { uid, gid }: Partial<ServerAccount> = {},
): ChildProcess {
  const log = openSync(logFile, 'a');
  const account = uid !== undefined && gid !== undefined ? { uid, gid } : {};
  const child = spawn(program, args, { cwd: '/', stdio: ['ignore', log, log], detached: true, ...account });
  closeSync(log);
  keeper.keep(child);
  return child;
}
