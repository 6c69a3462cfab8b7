// The processes behind the URL that a variant is measured at, and whose CPU is whose.
import path from 'node:path';
import { freePort } from '../../src/local/free-port.ts';
import { closeConnection, connect } from '../../src/shared/broker.ts';
import { topologyOf } from '../../src/shared/topology.ts';
import { cpuSeconds } from './cpu.ts';
import type { BenchDatabase } from './database.ts';
import { type ProcessKeeper, type Started, startProcess } from './processes.ts';
import type { BenchServers, Broker } from './servers.ts';
import type { Variant } from './variants.ts';

export const GROUPS = ['load', 'api', 'worker', 'postgres', 'beam'] as const;
export type Group = (typeof GROUPS)[number];
export type Cpu = Record<Group, number>;

export interface Bench {
  servers: BenchServers & { broker: Broker };
  keeper: ProcessKeeper;
}

export interface System {
  url: string;
  /** Of its names at the broker. */
  namespace: string;
  /** Of the process that serves HTTP. */
  apiPid: number;
  /** So far, in seconds; load is 0. */
  cpu(): Cpu;
  /** Relay and worker, where they do not run yet. @returns when both are ready. */
  startPipeline(): Promise<void>;
  /** Whether all that were started still run. */
  complete(): boolean;
  /** SIGKILL to the processes; their queues are deleted. `gently` lets them write a profile first. */
  end(how?: 'gently'): Promise<void>;
}

let made = 0;

export async function startSystem(
  { servers, keeper }: Bench,
  database: BenchDatabase,
  variant: Variant,
  nodeOptions: string[] = [],
  settings: Record<string, string> = {},
): Promise<System> {
  const { service, pipeline, eventsPerMessage, subscriber, relayApart, traced } = variant;
  const namespace = `bench-${process.pid}-${++made}`;
  const port = String(await freePort());
  const sinkPort = String(await freePort(Number(port) + 1));
  const started: Record<'api' | 'worker' | 'beside', Started[]> = { api: [], worker: [], beside: [] };
  const env = {
    DATABASE_URL: database.url,
    AMQP_URL: servers.broker.url,
    AMQP_NAMESPACE: namespace,
    HOST: '127.0.0.1',
    AUTH: 'off',
    EVENTS_PER_MESSAGE_MAX: String(eventsPerMessage),
    ...(traced !== undefined && {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${sinkPort}`,
      OTEL_TRACES_SAMPLER: 'traceidratio',
      OTEL_TRACES_SAMPLER_ARG: String(traced),
    }),
    ...settings,
  };
  const start = async (
    group: keyof typeof started,
    script: string,
    more: Record<string, string>,
    options: string[] = [],
  ) => {
    const logFile = path.join(servers.folder, 'logs', `${namespace}-${path.basename(script, '.ts')}-${group}.log`);
    const process = await startProcess(keeper, { script, env: { ...env, ...more }, logFile, nodeOptions: options });
    started[group].push(process);
    return process;
  };
  const startWorker = () => start('worker', '../../src/worker/main.ts', {});
  const startRelay = async () =>
    start('api', '../../src/api/main.ts', { RELAY: 'only', PORT: String(await freePort(Number(port) + 1)) });
  const [script, more] = {
    ceiling: ['ceiling.ts', {}] as const,
    usual: ['usual.ts', {}] as const,
    contract: ['usual.ts', { CONTRACT: 'outbox' }] as const,
    this: ['../../src/api/main.ts', { RELAY: pipeline === 'running' && !relayApart ? 'on' : 'off' }] as const,
  }[service];

  async function end(how?: 'gently'): Promise<void> {
    const all = Object.values(started).flat();
    await Promise.all(all.map((process) => (how === 'gently' ? process.stop() : process.kill())));
    await deleteTopology(servers.broker.url, namespace);
  }

  try {
    if (traced !== undefined) await start('beside', 'trace-sink.ts', { PORT: sinkPort });
    if (subscriber) await start('beside', 'subscriber.ts', {});
    if (pipeline === 'running') await startWorker();
    const api = await start('api', script, { ...more, PORT: port }, nodeOptions);
    if ((service === 'contract' || relayApart) && pipeline === 'running') await startRelay();
    return {
      url: `http://127.0.0.1:${port}`,
      namespace,
      apiPid: api.pid,
      cpu: () => ({
        load: 0,
        api: cpuSeconds(started.api.map(({ pid }) => pid)),
        worker: cpuSeconds(started.worker.map(({ pid }) => pid)),
        postgres: cpuSeconds([servers.postgres.pid]),
        beam: cpuSeconds(servers.broker.pids),
      }),
      async startPipeline() {
        await Promise.all([startWorker(), startRelay()]);
      },
      complete: () =>
        Object.values(started)
          .flat()
          .every((process) => process.alive()),
      end,
    };
  } catch (error) {
    await end();
    throw error;
  }
}

async function deleteTopology(url: string, namespace: string): Promise<void> {
  const topology = topologyOf(namespace);
  const connection = await connect(url, 'bench clean-up');
  const channel = await connection.createChannel();
  await channel.deleteQueue(topology.ledgerQueue);
  await channel.deleteQueue(topology.deadLetters);
  await channel.deleteQueue(`${topology.eventsExchange}.bench`);
  await channel.deleteExchange(topology.ledgerExchange);
  await channel.deleteExchange(topology.eventsExchange);
  await channel.deleteExchange(topology.deadLetters);
  await closeConnection(connection);
}

/** What was used between two looks, for each 1,000 updates. */
export function cpuPerThousand(before: Cpu, after: Cpu, updates: number): Cpu {
  const each = GROUPS.map((group) => [group, ((after[group] - before[group]) / updates) * 1000]);
  return Object.fromEntries(each) as Cpu;
}
