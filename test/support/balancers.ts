// What is in front of several API processes: a balancer of TCP connections that the test brings,
// and HAProxy, where it is installed, with the configurations of docs.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../src/local/free-port.ts';
import { onCleanUp, send, until } from './harness.ts';
import { endsWithUs } from './reaper.ts';

/** The second as Debian has it, for root alone on the PATH. */
export const haproxy = ['haproxy', '/usr/sbin/haproxy'].find((program) => spawnSync(program, ['-v']).status === 0);

/** What docs/cells/haproxy.cfg says: rules in named defaults. */
export const hasHaproxyOfCells = haproxy !== undefined && isAtLeast(2, 6);

function isAtLeast(major: number, minor: number): boolean {
  const output = spawnSync(haproxy as string, ['-v'], { encoding: 'utf8' }).stdout;
  const [its = 0, itsMinor = 0] = (/version (\d+)\.(\d+)/.exec(output) ?? []).slice(1).map(Number);
  return its > major || (its === major && itsMinor >= minor);
}

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
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const addresses = { ':3000': `127.0.0.1:${port}` };
  const servers = ports.map((here, index) => [`127.0.0.1:300${index + 1}`, `127.0.0.1:${here}`]);
  await runHaproxy(url, ['haproxy.cfg'], { ...addresses, ...Object.fromEntries(servers) });
  return url;
}

export interface CellsProxy {
  /** For clients. */
  url: string;
  /** Of each cell by itself. */
  inside: string[];
  /** A line for each request so far. */
  log(): string;
  stop(): Promise<void>;
}

/**
 * docs/cells/haproxy.cfg with other ports.
 * @param cells the URLs of the API processes of each cell, two at most.
 * @param edit what an operator changes in the configuration and in the map.
 */
export async function startCellsHaproxy(
  cells: readonly (readonly string[])[],
  edit?: (text: string) => string,
): Promise<CellsProxy> {
  const addresses: Record<string, string> = {};
  let last = 0;
  for (const bind of [':3000', ...cells.map((_, cell) => `127.0.0.1:310${cell + 1}`)]) {
    last = await freePort(last === 0 ? undefined : last + 1);
    addresses[bind] = `127.0.0.1:${last}`;
  }
  const [url = '', ...inside] = Object.values(addresses).map((address) => `http://${address}`);
  for (const [cell, urls] of cells.entries()) {
    for (const server of [0, 1]) {
      const its = urls[server];
      const here = its ? new URL(its).host : `127.0.0.1:${await freePort(last + 1)}`; // nobody listens there
      addresses[`127.0.0.1:30${cell + 1}${server + 1}`] = here;
    }
  }
  const running = await runHaproxy(url, ['cells/haproxy.cfg', 'cells/cells.map'], addresses, edit);
  return { url, inside, ...running };
}

/**
 * Returns when it serves. It is stopped at clean-up at the latest.
 * @param files below docs, the configuration first.
 * @param addresses what is there instead of the documented ones.
 */
async function runHaproxy(
  url: string,
  files: readonly string[],
  addresses: Readonly<Record<string, string>>,
  edit = (text: string) => text,
): Promise<Pick<CellsProxy, 'log' | 'stop'>> {
  const folder = await mkdtemp(path.join(tmpdir(), 'highload-balance-haproxy-'));
  onCleanUp(() => rm(folder, { recursive: true }));
  for (const file of files) {
    const documented = await readFile(fileURLToPath(new URL(`../../docs/${file}`, import.meta.url)), 'utf8');
    const ours = edit(documented).replaceAll(/(127\.0\.0\.1)?:3\d{3}\b/g, (address) => addresses[address] ?? address);
    await writeFile(path.join(folder, path.basename(file)), ours);
  }
  const child = spawn(haproxy as string, ['-db', '-f', path.join(folder, 'haproxy.cfg')], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  endsWithUs(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (output += text));
  const ended = once(child, 'exit');
  const stop = async () => {
    child.kill('SIGTERM');
    await ended;
  };
  onCleanUp(stop);
  await until('HAProxy serves', async () => {
    if (child.exitCode !== null) throw new Error(`HAProxy ended:\n${output}`);
    return (await send(url, 'GET', '/openapi.json').catch(() => undefined))?.status === 200;
  });
  return { log: () => output, stop };
}
