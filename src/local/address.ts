// Where the API of `npm start` listens: HOST and PORT, checked before anything starts.
import { isIPv6 } from 'node:net';
import { listenFailure } from './free-port.ts';
import { SetupProblem } from './setup-problem.ts';

const PORT_DEFAULT = 3000;
const PORT_MAX = 65_535;
/**
 * With these a server listens on all addresses; a client on this machine uses the loopback address.
 */
const ANYWHERE: Readonly<Record<string, string>> = { '0.0.0.0': '127.0.0.1', '::': '::1' };

export interface Address {
  host: string;
  port: number;
  /** For clients on this machine. */
  url: string;
}

/** @throws SetupProblem */
export function readAddress(env: NodeJS.ProcessEnv): Address {
  const port = Number(env.PORT || PORT_DEFAULT);
  if (!/^\d*$/.test(env.PORT ?? '') || port < 1 || port > PORT_MAX) {
    throw new SetupProblem(`PORT must be a number from 1 to ${PORT_MAX}, not "${env.PORT}".`);
  }
  const host = env.HOST || '127.0.0.1';
  const reached = ANYWHERE[host] ?? host;
  const url = `http://${isIPv6(reached) ? `[${reached}]` : reached}:${port}`;
  if (!URL.canParse(url)) throw noAddress(host);
  return { host, port, url };
}

/** @throws SetupProblem that says why nothing can listen there. */
export async function checkAddress({ host, port }: Address): Promise<void> {
  const code = await listenFailure(port, host);
  if (code === undefined) return;
  const other = `PORT=${port === PORT_DEFAULT ? PORT_DEFAULT + 1 : PORT_DEFAULT} npm start`;
  if (code === 'EADDRINUSE') {
    throw new SetupProblem(
      `Port ${port} on ${host} is already in use by another program: start with another one, ${other}`,
    );
  }
  if (code === 'EACCES') throw new SetupProblem(`Port ${port} requires root: start with another one, ${other}`);
  throw noAddress(host);
}

function noAddress(host: string): SetupProblem {
  const isOfConda = /-conda[-_]/.test(host) ? ' conda sets it to the name of a platform.' : '';
  return new SetupProblem(
    `HOST is "${host}", which is not an address of this machine.${isOfConda} Unset it, or name one: HOST=127.0.0.1 npm start`,
  );
}
