// Finds or starts a RabbitMQ, the first that works: AMQP_URL, localhost:5672, Docker, a private node of the machine's
// rabbitmq-server, the Debian package. Only what is started here is ever stopped.
import path from 'node:path';
import { brokerOf, brokerUrls } from '../shared/broker-urls.ts';
import { readBrokerSettings } from '../shared/config.ts';
import type { KnownProcess } from '../shared/runtime.ts';
import { probeBroker } from './amqp-probe.ts';
import type { Confirm } from './confirm.ts';
import { startDockerBroker } from './docker-broker.ts';
import { installRabbitmqServer } from './install-broker.ts';
import { findRabbitmqServer } from './machine-broker.ts';
import { startPrivateBroker } from './private-broker.ts';
import type { Revival } from './server-revival.ts';
import { SetupProblem } from './setup-problem.ts';

const PROBE_TIMEOUT_MS = 5_000;
const LOCALHOST_URL = 'amqp://guest:guest@127.0.0.1:5672';
// Not 5672, where another clone would mistake it for the machine's broker.
const PORT_PREFERRED = 25_682;

export interface BrokerOptions {
  /** Folder for a private node's data. */
  dir: string;
  env?: NodeJS.ProcessEnv;
  /** false skips Docker: tests try it separately. */
  docker?: boolean;
  say?: (line: string) => void;
  /** Called with each process that is started. */
  onSpawn?: (process: KnownProcess) => void;
  /**
   * Asks before a package is installed; undefined if there is no terminal; then it is installed
   * without asking.
   */
  confirm?: Confirm | undefined;
  /** Cancels the start of a private node. */
  interrupted?: AbortSignal;
}

export interface RunningBroker {
  url: string;
  /** For people: which broker this is. */
  description: string;
  /** true when others use it too: it is not ours to stop. */
  shared: boolean;
  /** Absent if the broker is not ours to restart, or Docker watches it. */
  revival?: Revival;
  stop: () => Promise<void>;
}

/** Throws SetupProblem, listing the ways to get a broker, when none works. */
export async function findBroker(options: BrokerOptions): Promise<RunningBroker> {
  const { env = process.env, docker = true, say = () => undefined } = options;
  if (env.AMQP_URL) return given(env.AMQP_URL);

  const tried: string[] = [];
  const skip = (what: string, reason: string) => {
    tried.push(`  ${what}: ${reason}`);
    say(`RabbitMQ: not ${what} (${reason})`);
  };

  const local = await probeBroker(LOCALHOST_URL, PROBE_TIMEOUT_MS);
  if (local.answer === 'ready') return sharedBroker(LOCALHOST_URL, `RabbitMQ ${local.version} on localhost:5672`);
  skip('localhost:5672', local.reason);

  if (docker) {
    const container = await startDockerBroker({ dir: options.dir, port: PORT_PREFERRED, say });
    if (!('unavailable' in container)) {
      const { url, version, name, stop } = container;
      return { url, description: `RabbitMQ ${version} in the Docker container ${name}`, shared: false, stop };
    }
    skip('Docker', container.unavailable);
  }

  const missing = findRabbitmqServer() ? undefined : await installRabbitmqServer(env, say, options.confirm);
  if (missing === undefined) {
    try {
      return await privateNode(options, say);
    } catch (error) {
      if (!(error instanceof SetupProblem)) throw error;
      skip('a private node', error.message);
    }
  } else {
    skip("the machine's own rabbitmq-server", missing);
  }
  throw new SetupProblem(`There is no RabbitMQ.\n${tried.join('\n')}\n${WAYS}`);
}

const WAYS = `Any of these helps:
  - start Docker
  - install RabbitMQ 3.10 or later ("apt-get install rabbitmq-server", "brew install rabbitmq")
  - point to one that runs: AMQP_URL=amqp://user:password@host:5672 npm start`;

/** One of its nodes is enough. */
async function given(list: string): Promise<RunningBroker> {
  try {
    readBrokerSettings({ AMQP_URL: list });
  } catch (cause) {
    throw new SetupProblem((cause as Error).message, { cause });
  }
  const problems: string[] = [];
  for (const url of brokerUrls(list)) {
    const probe = await probeBroker(url, PROBE_TIMEOUT_MS);
    if (probe.answer === 'ready') return sharedBroker(list, `RabbitMQ ${probe.version} at ${brokerOf(url)} (AMQP_URL)`);
    const verb = probe.answer === 'refused' ? 'refuses the connection' : 'does not answer';
    problems.push(`The RabbitMQ at ${brokerOf(url)} (AMQP_URL) ${verb}: ${probe.reason}.`);
  }
  throw new SetupProblem(`${problems.join('\n')}\nCorrect AMQP_URL, or unset it to have one found or started.`);
}

function sharedBroker(url: string, description: string): RunningBroker {
  return { url, description, shared: true, stop: () => Promise.resolve() };
}

async function privateNode(options: BrokerOptions, say: (line: string) => void): Promise<RunningBroker> {
  say('RabbitMQ: starting a private node, about 10 s');
  const node = await startPrivateBroker({
    dir: path.join(options.dir, 'rabbitmq'),
    port: PORT_PREFERRED,
    say,
    ...(options.onSpawn && { onSpawn: options.onSpawn }),
    ...(options.interrupted && { interrupted: options.interrupted }),
  });
  return {
    url: node.url,
    description: `RabbitMQ ${node.version}, a private node on port ${node.port}`,
    shared: false,
    stop: node.stop,
    revival: { isRunning: () => node.isRunning, start: node.start },
  };
}
