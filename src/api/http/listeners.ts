// Listens with several sockets on one port, all of which serve one HTTP server: the event loop
// accepts one connection of a listening socket a turn, so under load, when a turn takes long, new
// connections would wait for minutes at a single socket. The kernel distributes connections among
// sockets with SO_REUSEPORT. decisions/012-several-listening-sockets.md
import cluster from 'node:cluster';
import { once } from 'node:events';
import type { Server } from 'node:http';
import { type AddressInfo, createServer, type ListenOptions, Server as NetServer, type Socket } from 'node:net';

/** At 25 ms a turn, the target of the request admission, this is 2,560 connections a second. */
const SOCKETS = 64;

export interface Listeners {
  port: number;
  /** Stops listening; resolves when all connections have ended. */
  close(): Promise<void>;
}

/** @throws the listen error (EADDRINUSE, EACCES). */
export async function listen(server: Server, host: string, port: number): Promise<Listeners> {
  // In a cluster the primary accepts, and does nothing else. Other operating systems do not
  // distribute connections.
  const isShared = process.platform === 'linux' && !cluster.isWorker;
  if (isShared && port !== 0) await claim(host, port);
  await listening(server, { host, port, reusePort: isShared });
  const address = server.address() as AddressInfo;
  const others = isShared ? Array.from({ length: SOCKETS - 1 }, () => createFeeder(server)) : [];
  const closeAll = async () => {
    await Promise.all([server, ...others].map(closed));
  };
  try {
    for (const other of others) await listening(other, { host, port: address.port, reusePort: true });
  } catch (error) {
    await closeAll();
    throw error;
  }
  return { port: address.port, close: closeAll };
}

/**
 * Sockets that share a port do not get EADDRINUSE for each other, but two services on one port
 * must.
 */
async function claim(host: string, port: number): Promise<void> {
  const alone = createServer();
  await listening(alone, { host, port });
  await closed(alone);
}

function createFeeder(server: Server): NetServer {
  // As node:http has it: a client may end its half and still read its answer.
  return createServer({ allowHalfOpen: true, noDelay: true }, (socket: Socket) => server.emit('connection', socket));
}

async function listening(server: NetServer, options: ListenOptions): Promise<void> {
  server.listen(options);
  await once(server, 'listening');
}

/**
 * Only this part of the HTTP server: its own close() also ends connections that have not sent a
 * request yet.
 */
function closed(server: NetServer): Promise<void> {
  return new Promise((resolve) => {
    if (server.listening) NetServer.prototype.close.call(server, () => resolve());
    else resolve();
  });
}
