// npm run bench: starts its own servers, measures, prints one table, writes benchmarks.md, and takes all of it away.
import { mkdtempSync } from 'node:fs';
import path from 'node:path';
import { commandLine, refuse, wholeOption } from '../../src/cli/command-line.ts';
import { createTemplate } from './database.ts';
import { interruptible } from './interrupt.ts';
import { chooseDriver, type Driver } from './load.ts';
import { describeMachine } from './machine.ts';
import { measure } from './measure.ts';
import { measureMemory } from './memory.ts';
import { whole } from './numbers.ts';
import { keeperOf } from './processes.ts';
import { printProfile } from './profile.ts';
import { installBenchDependencies, publish } from './publish.ts';
import { printTable, printTargets } from './report.ts';
import { folderOf, type GrowthPoint, pageIn, type Results, readResults } from './results.ts';
import { lineOf, measureRounds } from './rounds.ts';
import { startServers } from './servers.ts';
import { summarize } from './summary.ts';
import type { Bench } from './system.ts';
import { judge } from './targets.ts';
import { fullPlan, growthSeries, measured, nameOf, type Planned, quickPlan } from './variants.ts';

const HELP = `usage: npm run bench -- [options]

Measures this service against the usual way and against its own HTTP layer, on servers of its own; about 15 minutes.
Writes test/bench/report/benchmarks.md, its charts, and benchmarks/results.json, which git ignores.

  --publish        writes them to docs/ instead
  --quick          the variants of the targets only, shorter
  --minutes N      ends the rounds after that time, with the runs that were made (60; with --quick 10). A run that others
                   disturbed is repeated only while there is time
  --growth         also how cost grows with accounts, ledger rows and the hot share; about 15 minutes more
  --updates N      also the API's memory over N updates (200000; with --quick only when given)
  --memory-only    the API's memory alone, into the page of an earlier run: bytes are the same on a slower machine
  --rounds N       rounds of the variants of the targets (3; with --quick 2)
  --seconds N      of load in a run (4; with --quick 2)
  --hold-seconds N of load in a run with another session's transaction held open (as the others; pg_dump three times that)
  --only TEXT      the variants whose name holds TEXT; writes no file
  --profile        the variants of --only, else one hot account, with a CPU profile of the API; writes no file
  --driver NAME    wrk or autocannon (wrk where it is installed)`;

const args = commandLine(
  {
    ...{ quick: { type: 'boolean' }, growth: { type: 'boolean' }, profile: { type: 'boolean' } },
    ...{ updates: { type: 'string' }, rounds: { type: 'string' }, seconds: { type: 'string' } },
    ...{ 'hold-seconds': { type: 'string' }, 'memory-only': { type: 'boolean' }, minutes: { type: 'string' } },
    ...{ only: { type: 'string' }, driver: { type: 'string' }, publish: { type: 'boolean' } },
  },
  HELP,
);
const folder = folderOf(args.publish ?? false);
const MEMORY_UPDATES = 200_000;
const DISTURBED_PAUSE_MS = 5000;
/** Of the rounds. A busy machine disturbs every run, and would be waited for without end. */
const MINUTES = 60;
const QUICK_MINUTES = 10;

const wholeOf = <Fallback extends number | undefined>(
  name: 'updates' | 'rounds' | 'seconds' | 'hold-seconds' | 'minutes',
  fallback: Fallback,
) => wholeOption(name, args[name], fallback, 999_999_999);

await main();

async function main(): Promise<void> {
  const { quick = false, only, 'memory-only': memoryOnly = false } = args;
  const seconds = wholeOf('seconds', quick ? 2 : 4);
  const rounds = wholeOf('rounds', quick ? 2 : 3);
  const updates = wholeOf('updates', quick ? 0 : MEMORY_UPDATES);
  const holdSeconds = wholeOf('hold-seconds', undefined);
  const minutes = wholeOf('minutes', quick ? QUICK_MINUTES : MINUTES);
  const plan = (quick ? quickPlan(rounds) : fullPlan(rounds))
    .filter(({ variant }) => nameOf(variant).includes(only ?? ''))
    .map((planned) => held(planned, holdSeconds && holdSeconds / seconds));
  const before = readResults(folder);
  if (memoryOnly && !before) refuse('--memory-only adds to the page of an earlier run, and there is none.');
  await installBenchDependencies();
  console.log('Starting PostgreSQL and RabbitMQ');
  const servers = await startServers(console.log);
  const over = interruptible(() => servers.reaper.close());
  try {
    const bench: Bench = { servers, keeper: keeperOf(servers.reaper) };
    const { name: driver, run } = chooseDriver(bench.keeper, args.driver);
    const machine = await describeMachine(servers.postgres.url, servers.broker.description);
    console.log(`${machine.cpu}, ${machine.cores} cores, ${machine.commitsPerSecond} commits/s; ${driver}`);
    await createTemplate(servers.postgres.url);
    if (args.profile) return await profile(bench, run, seconds, only === undefined ? PROFILED : plan);
    if (memoryOnly && before) return await publishMemory(before, await memoryOf(bench, run, updates || MEMORY_UPDATES));

    const summaries = summarize(
      await measureRounds(
        plan,
        (variant) => measure(bench, variant, { seconds, driver: run }),
        { limitMs: minutes * 60_000, pauseMs: DISTURBED_PAUSE_MS },
        console.log,
      ),
    );
    if (only !== undefined) return printTable([...summaries.values()]);
    const results: Results = {
      date: new Date().toISOString(),
      command: ownCommand(),
      driver,
      secondsPerRun: seconds,
      machine,
      summaries: [...summaries.values()],
      targets: judge(summaries, before?.memory),
      memory: before?.memory,
      growth: before?.growth,
      sql: before?.sql,
    };
    printTable(results.summaries);
    await publish(folder, results); // what follows is long: until it is done, that of an earlier run stands
    if (updates > 0) {
      results.memory = await memoryOf(bench, run, updates);
      results.targets = judge(summaries, results.memory);
      await publish(folder, results);
    }
    if (args.growth) {
      results.growth = await growthOf(bench, seconds, run);
      await publish(folder, results);
    }
    printTargets(results.targets);
    console.log(`Written: ${pageIn(folder)}`);
    if (results.summaries.some(({ problems }) => problems.length > 0)) process.exitCode = 1;
  } finally {
    over();
    await servers.stop();
  }
}

/** A run with a transaction held open, once and for so many times as long as the others. */
function held({ variant, rounds }: Planned, factor: number | undefined): Planned {
  if (variant.hold === 'nothing' || factor === undefined) return { variant, rounds };
  return { variant: { ...variant, loadFactor: factor }, rounds: 1 };
}

function ownCommand(): string {
  return ['npm run bench', ...(process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : [])].join(' ');
}

async function memoryOf(bench: Bench, driver: Driver, updates: number): Promise<Results['memory']> {
  console.log(`Memory of the API over ${whole(updates)} updates`);
  return { command: ownCommand(), ...(await measureMemory(bench, driver, updates)) };
}

async function publishMemory(before: Results, memory: Results['memory']): Promise<void> {
  const targets = judge(new Map(before.summaries.map((summary) => [summary.name, summary])), memory);
  await publish(folder, { ...before, memory, targets });
  printTargets(targets);
  console.log(`Written: ${pageIn(folder)}`);
}

async function growthOf(bench: Bench, seconds: number, driver: Driver): Promise<Results['growth']> {
  const series: Record<string, { title: string; points: GrowthPoint[] }> = {};
  for (const [key, { title, points }] of Object.entries(growthSeries())) {
    const measuredPoints: GrowthPoint[] = [];
    for (const [at, variant] of points) {
      const run = await measure(bench, variant, { seconds, driver });
      console.log(`[growth] ${lineOf(run)}`);
      const { acceptedPerSecond, p99Ms, endToEndPerSecond, problems } = run;
      measuredPoints.push({ at, acceptedPerSecond, p99Ms, endToEndPerSecond, problems });
    }
    series[key] = { title, points: measuredPoints };
  }
  return { date: new Date().toISOString(), series };
}

const PROFILED = [{ variant: measured.hotDeferred }, { variant: measured.hotRunning }];

async function profile(
  bench: Bench,
  driver: Driver,
  seconds: number,
  plan: readonly Pick<Planned, 'variant'>[],
): Promise<void> {
  for (const { variant } of plan) {
    const folder = mkdtempSync(path.join(bench.servers.folder, 'profile-'));
    const run = await measure(bench, variant, {
      seconds,
      driver,
      nodeOptions: ['--cpu-prof', `--cpu-prof-dir=${folder}`],
    });
    console.log(`\n${lineOf(run)}`);
    printProfile(folder);
  }
}
