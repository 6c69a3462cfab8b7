// The processes under test, as they run in production: two API processes with a relay each, and two workers. Each reaches
// PostgreSQL and RabbitMQ through proxies of its own.
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '../../src/local/free-port.ts';
import { type ProcessKeeper, type Started, startProcess } from '../bench/processes.ts';
import { startProxy, type TcpProxy } from './proxy.ts';

export type Kind = 'api' | 'worker';

export interface Member {
  readonly name: string;
  readonly kind: Kind;
  /** Of its HTTP, the worker's health included. Stays the same over restarts. */
  readonly port: number;
  readonly links: { postgres: TcpProxy; broker: TcpProxy };
  readonly logFile: string;
  readonly isRunning: boolean;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** SIGTERM; returns the exit code, null when it had to be killed. */
  terminate(): Promise<number | null>;
  /** Returns when it is ready. */
  start(): Promise<void>;
  signal(name: 'SIGSTOP' | 'SIGCONT'): void;
  /** Steps its wall clock, for as long as the process lives. */
  shiftClock(shiftMs: number): void;
}

export interface Fleet {
  readonly apis: readonly Member[];
  readonly workers: readonly Member[];
  readonly members: readonly Member[];
  /** Processes that ended although nobody told them to. */
  readonly accidents: string[];
  stop(): Promise<void>;
}

export interface FleetOptions {
  keeper: ProcessKeeper;
  /** For logs. */
  folder: string;
  databaseUrl: string;
  amqpUrl: string;
  environment: Record<string, string>;
}

const CLOCK = fileURLToPath(new URL('clock.mjs', import.meta.url));

/** Own settings where two of a kind shall differ. */
const MEMBERS: readonly { name: string; kind: Kind; environment: Record<string, string> }[] = [
  { name: 'api-1', kind: 'api', environment: { EVENTS_PER_MESSAGE_MAX: '1' } },
  { name: 'api-2', kind: 'api', environment: { EVENTS_PER_MESSAGE_MAX: '20' } },
  { name: 'worker-1', kind: 'worker', environment: {} },
  { name: 'worker-2', kind: 'worker', environment: { BATCH_ROWS_MAX: '10', PREFETCH: '50' } },
];

export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const accidents: string[] = [];
  const members = await Promise.all(
    MEMBERS.map((one) => startMember({ ...options, ...one, common: options.environment }, accidents)),
  );
  return {
    members,
    apis: members.filter(({ kind }) => kind === 'api'),
    workers: members.filter(({ kind }) => kind === 'worker'),
    accidents,
    async stop() {
      await Promise.all(members.map((member) => member.kill()));
      await Promise.all(members.flatMap(({ links }) => [links.postgres.close(), links.broker.close()]));
    },
  };
}

async function startMember(
  options: FleetOptions & { name: string; kind: Kind; common: Record<string, string> },
  accidents: string[],
): Promise<Member> {
  const { keeper, folder, databaseUrl, amqpUrl, name, kind, common, environment } = options;
  const links = { postgres: await startProxy(portOf(databaseUrl)), broker: await startProxy(portOf(amqpUrl)) };
  const port = await freePort();
  const logFile = path.join(folder, `${name}.log`);
  const env = {
    DATABASE_URL: through(links.postgres, databaseUrl),
    AMQP_URL: through(links.broker, amqpUrl),
    HOST: '127.0.0.1',
    PORT: String(port),
    HEALTH_HOST: '127.0.0.1',
    HEALTH_PORT: String(port),
    ...common,
    ...environment,
  };
  let running: Started | undefined;

  async function start(): Promise<void> {
    const nodeOptions = ['--import', CLOCK];
    const started = await startProcess(keeper, { script: `../../src/${kind}/main.ts`, env, logFile, nodeOptions });
    running = started;
    started.child.once('exit', (code, signal) => {
      if (running !== started) return; // it was told to
      running = undefined;
      accidents.push(`${name} ended by itself (${signal ?? code}); its log: ${logFile}`);
    });
  }
  await start();
  return {
    name,
    kind,
    port,
    links,
    logFile,
    get isRunning() {
      return running !== undefined;
    },
    async kill() {
      const { child, kill } = running ?? {};
      running = undefined;
      child?.kill('SIGCONT');
      await kill?.();
    },
    async terminate() {
      const terminated = running;
      running = undefined;
      if (!terminated) return 0;
      await terminated.stop();
      return terminated.child.exitCode;
    },
    start,
    signal(signal) {
      running?.child.kill(signal);
    },
    shiftClock(clockShiftMs) {
      running?.child.send({ clockShiftMs });
    },
  };
}

function portOf(url: string): { port: number } {
  return { port: Number(new URL(url).port) };
}

function through(proxy: TcpProxy, url: string): string {
  const proxied = new URL(url);
  proxied.host = `127.0.0.1:${proxy.port}`;
  return proxied.href;
}
