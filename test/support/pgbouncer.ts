// PgBouncer before the PostgreSQL of a test, where it is installed.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePort } from '../../src/local/free-port.ts';
import { serverAccount } from '../../src/local/server-account.ts';
import { onCleanUp, until } from './harness.ts';
import { endsWithUs } from './reaper.ts';

/** The second as Debian has it, for root alone on the PATH. */
export const pgbouncer = ['pgbouncer', '/usr/sbin/pgbouncer'].find(
  (program) => spawnSync(program, ['--version']).status === 0,
);

export type PoolMode = 'session' | 'transaction' | 'statement';

/**
 * Stopped at clean-up. All but what is given is PgBouncer's default.
 * @param databaseUrl where the pool leads, and as whom.
 * @param settings lines of the section [pgbouncer].
 * @returns the URL of the same database by way of the pool.
 */
export async function startPgbouncer(databaseUrl: string, mode: PoolMode, settings: string[] = []): Promise<string> {
  const server = new URL(databaseUrl);
  const account = serverAccount(); // PgBouncer refuses to run as root
  const folder = await mkdtemp(path.join(tmpdir(), 'highload-balance-pgbouncer-'));
  onCleanUp(() => rm(folder, { recursive: true }));
  const port = await freePort();
  const file = path.join(folder, 'pgbouncer.ini');
  const { hostname, username } = server;
  const password = decodeURIComponent(server.password);
  const lines = [
    ...['[databases]', `* = host=${hostname} port=${server.port} user=${username} password='${password}'`],
    ...['[pgbouncer]', 'listen_addr = 127.0.0.1', `listen_port = ${port}`, 'unix_socket_dir ='],
    ...['auth_type = any', `pool_mode = ${mode}`, ...settings],
  ];
  await writeFile(file, lines.join('\n'));
  const { uid, gid } = account;
  if (uid !== undefined && gid !== undefined) for (const one of [folder, file]) await chown(one, uid, gid);
  const child = spawn(pgbouncer as string, [file], {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(uid !== undefined && gid !== undefined && { uid, gid }),
  });
  endsWithUs(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text));
  const ended = once(child, 'exit');
  onCleanUp(async () => {
    child.kill('SIGKILL'); // it has nothing to lose
    await ended;
  });
  await until('PgBouncer listens', async () => {
    if (child.exitCode !== null) throw new Error(`PgBouncer ended:\n${output}`);
    const socket = connect(port, '127.0.0.1');
    const isThere = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    return isThere;
  });
  server.host = `127.0.0.1:${port}`;
  return server.href;
}
