// Finds a loopback TCP port that no program listens on right now. Another program may still take it
// before it is used: the calling code then tries another one.
import net from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { SetupProblem } from './setup-problem.ts';

const PORTS_TRIED_MAX = 50;
const LOOK_UP_TIMEOUT_MS = 5_000;

// The sockets of a killed server outlive it briefly; those of another program stay.
const SAME_PORT_TIMEOUT_MS = 10_000;
const SAME_PORT_POLL_INTERVAL_MS = 25;

// Below the range from which systems hand out ports for outgoing connections (Linux from 32768): a server that is
// down for a moment would otherwise lose its port to some client, or a client would connect to itself.
const RANDOM_PORT_MIN = 20_000;
const RANDOM_PORT_MAX = 31_999;

/** The preferred port, or the first free one after it; without a preference a random one. */
export async function freePort(preferred?: number): Promise<number> {
  const first = preferred ?? RANDOM_PORT_MIN + Math.floor(Math.random() * (RANDOM_PORT_MAX - RANDOM_PORT_MIN));
  for (let port = first; port < first + PORTS_TRIED_MAX; port += 1) {
    if (await isPortFree(port)) return port;
  }
  throw new Error(`No free port on 127.0.0.1 from ${first} to ${first + PORTS_TRIED_MAX - 1}`);
}

/** Exactly that port, as soon as its previous server has released it. */
export async function samePort(port: number): Promise<number> {
  const deadline = performance.now() + SAME_PORT_TIMEOUT_MS;
  while (!(await isPortFree(port))) {
    if (performance.now() > deadline) throw new SetupProblem(`Port ${port} of a stopped server was taken meanwhile.`);
    await delay(SAME_PORT_POLL_INTERVAL_MS);
  }
  return port;
}

/** Whether a listener on that address and port would succeed. */
export async function isPortFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return (await listenFailure(port, host)) === undefined;
}

/** The error code with which a listener on that address and port fails; undefined when it would succeed. */
export function listenFailure(port: number, host: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const server = net.createServer();
    // A name that is not an address of this machine may be sent to a slow resolver.
    const timeout = setTimeout(() => resolve('ETIMEDOUT'), LOOK_UP_TIMEOUT_MS);
    const end = (code: string | undefined) => {
      clearTimeout(timeout);
      resolve(code);
    };
    server.once('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
    server.listen({ port, host, exclusive: true }, () => server.close(() => end(undefined)));
  });
}
