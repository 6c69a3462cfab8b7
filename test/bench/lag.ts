// npm run bench:lag: how long a change takes from its commit to its entry in the ledger at an even rate, with nobody bound,
// beside a subscriber that reads, and beside one whose queue hangs. On servers of its own; exit code 1 where a bound was
// missed.
import { commandLine, wholeOption } from '../../src/cli/command-line.ts';
import { topologyOf } from '../../src/shared/topology.ts';
import { HOT_ACCOUNT } from './accounts.ts';
import { createBounds } from './bounds.ts';
import { createDatabase, createTemplate, drained, ledgerLag } from './database.ts';
import type { Flood, FloodResult } from './flood.ts';
import { interruptible } from './interrupt.ts';
import { short, whole } from './numbers.ts';
import { keeperOf } from './processes.ts';
import { starterOf } from './scripts.ts';
import { startServers } from './servers.ts';
import { type Bench, startSystem } from './system.ts';
import { ours } from './variants.ts';

const { rate, seconds } = commandLine(
  { rate: { type: 'string' }, seconds: { type: 'string' } },
  `usage: npm run bench:lag -- [options]

Measures how long changes of one hot account take from their commit to their entry in the ledger, on servers of its own;
about two minutes. Prints a table; exit code 1 where a bound was missed.

  --rate N         updates a second (1000; 10000 at most)
  --seconds N      of each load (20; 600 at most)`,
);
const perSecond = wholeOption('rate', rate, 1000, 10_000);
const loadSeconds = wholeOption('seconds', seconds, 20, 600);

const P99_MS_MAX = 60;
const CONNECTIONS = 64;
const WARM_UP_SECONDS = 3;
const DRAIN_TIMEOUT_MS = 60_000;

const SUBSCRIBERS = ['nobody is bound', 'a subscriber reads', 'a subscriber hangs'] as const;
const { judge, report } = createBounds();

async function measureLag(bench: Bench, subscriber: (typeof SUBSCRIBERS)[number]): Promise<void> {
  const { servers, keeper } = bench;
  const { control } = servers.broker;
  if (subscriber === 'a subscriber hangs' && !control) {
    console.log('Its queue is suspended by rabbitmqctl, on a node of its own: not measured without rabbitmq-server');
    return;
  }
  const variant = ours({ subscriber: subscriber !== 'nobody is bound' });
  const database = await createDatabase(servers.postgres.url, variant);
  const system = await startSystem(bench, database, variant);
  const start = starterOf(keeper);
  const flood = async (seconds: number): Promise<FloodResult> => {
    const options: Flood = {
      ...{ url: system.url, accountId: HOT_ACCOUNT, seconds, rate: perSecond, connections: CONNECTIONS },
    };
    return (await start('flood.ts', JSON.stringify(options)).result) as FloodResult;
  };
  try {
    const warmUp = await flood(WARM_UP_SECONDS);
    if (subscriber === 'a subscriber hangs') {
      const queue = `${topologyOf(system.namespace).eventsExchange}.bench`;
      await control?.('eval', `sys:suspend(whereis('%2F_${queue}')).`);
    }
    const { accepted, acceptedP99Ms } = await flood(loadSeconds);
    const isDrained = await drained(database, DRAIN_TIMEOUT_MS);
    const { changes, p50Ms, p99Ms, maxMs } = await ledgerLag(database, warmUp.accepted);
    judge(
      `${subscriber}: lag of the ledger, p50, p99, longest, at ${whole(accepted / loadSeconds)} updates/s`,
      `${short(p50Ms)} ms, ${short(p99Ms)} ms, ${short(maxMs)} ms, of ${whole(changes)}; answers: p99 ${short(acceptedP99Ms)} ms`,
      `p99 ≤ ${P99_MS_MAX} ms, all of them`,
      isDrained && changes >= accepted && p99Ms <= P99_MS_MAX,
    );
  } finally {
    await system.end();
    await database.drop();
  }
}

const servers = await startServers(console.log);
const over = interruptible(() => servers.reaper.close());
try {
  await createTemplate(servers.postgres.url);
  for (const subscriber of SUBSCRIBERS) await measureLag({ servers, keeper: keeperOf(servers.reaper) }, subscriber);
} finally {
  over();
  await servers.stop();
}
report();
