// What is in front of several API processes: a balancer of TCP connections that the test brings,
// and HAProxy, where it is installed, with the settings that docs/haproxy.cfg recommends.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../src/local/free-port.ts';
import { onCleanUp, send, until } from './harness.ts';

/** The second as Debian has it, for root alone on the PATH. */
export const haproxy = ['haproxy', '/usr/sbin/haproxy'].find((program) => spawnSync(program, ['-v']).status === 0);

const ASK_EVERY_MS = 200;

/** It asks each process whether it is ready, and each connection goes to the next that is. @returns its URL. */
export async function startBalancer(ports: readonly number[]): Promise<string> {
  const sockets = new Set<Socket>();
  let turn = 0;
  const notReady = new Set<number>();
  const asking = setInterval(() => {
    for (const port of ports) {
      send(`http://127.0.0.1:${port}`, 'GET', '/readyz', undefined, { connection: 'close' }).then(
        ({ status }) => (status === 200 ? notReady.delete(port) : notReady.add(port)),
        () => notReady.add(port),
      );
    }
  }, ASK_EVERY_MS);
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket)).on('error', () => {});
  };
  async function connected(): Promise<Socket | undefined> {
    const from = ++turn;
    const ready = ports.filter((port) => !notReady.has(port));
    for (let attempt = 0; attempt < ready.length; attempt += 1) {
      const port = ready[(from + attempt) % ready.length] as number;
      const far = connect({ port, host: '127.0.0.1', noDelay: true });
      keep(far);
      const outcome = await Promise.race([
        once(far, 'connect').then(() => true),
        once(far, 'close').then(() => false),
      ]).catch(() => false);
      if (outcome) return far;
    }
    return undefined;
  }
  const server = createServer({ pauseOnConnect: true, noDelay: true, allowHalfOpen: true }, async (near) => {
    keep(near);
    const far = await connected();
    if (!far) return near.destroy();
    near.once('close', () => far.destroy());
    far.once('close', () => near.destroySoon());
    near.pipe(far);
    far.pipe(near);
    near.resume();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onCleanUp(async () => {
    clearInterval(asking);
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** docs/haproxy.cfg with other ports. @returns its URL. */
export async function startHaproxy(ports: readonly number[]): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'highload-balance-haproxy-'));
  onCleanUp(() => rm(folder, { recursive: true }));
  const port = await freePort();
  const documented = await readFile(fileURLToPath(new URL('../../docs/haproxy.cfg', import.meta.url)), 'utf8');
  const ours = documented
    .replace('bind :3000', `bind 127.0.0.1:${port}`)
    .replace('127.0.0.1:3001', `127.0.0.1:${ports[0]}`)
    .replace('127.0.0.1:3002', `127.0.0.1:${ports[1]}`);
  const file = path.join(folder, 'haproxy.cfg');
  await writeFile(file, ours);
  const child = spawn(haproxy as string, ['-db', '-f', file], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text));
  const ended = once(child, 'exit');
  onCleanUp(async () => {
    child.kill('SIGTERM');
    await ended;
  });
  const url = `http://127.0.0.1:${port}`;
  await until('HAProxy serves', async () => {
    if (child.exitCode !== null) throw new Error(`HAProxy ended:\n${output}`);
    return (await send(url, 'GET', '/openapi.json').catch(() => undefined))?.status === 200;
  });
  return url;
}
