// npm run bench: starts its own servers, measures, prints one table, writes docs/benchmarks.md, and takes all of it away.
import { mkdtempSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { createTemplate } from './database.ts';
import { interruptible } from './interrupt.ts';
import { chooseDriver, type Driver } from './load.ts';
import { describeMachine } from './machine.ts';
import { measure, type Run } from './measure.ts';
import { measureMemory } from './memory.ts';
import { short, whole } from './numbers.ts';
import { keeperOf } from './processes.ts';
import { printProfile } from './profile.ts';
import { installBenchDependencies, publish } from './publish.ts';
import { printTable, printTargets } from './report.ts';
import { type GrowthPoint, type Results, readResults } from './results.ts';
import { startServers } from './servers.ts';
import { summarize } from './summary.ts';
import type { Bench } from './system.ts';
import { judge } from './targets.ts';
import { fullPlan, growthSeries, measured, nameOf, type Planned, quickPlan, type Variant } from './variants.ts';

const HELP = `npm run bench -- [options]

Measures this service against the usual way and against its own HTTP layer, on servers of its own; about 15 minutes.
Writes docs/benchmarks.md, its charts, and docs/benchmarks/results.json.

  --quick          the variants of the targets only, shorter; about 3 minutes
  --growth         also how cost grows with accounts, ledger rows and the hot share; about 15 minutes more
  --updates N      also the API's memory over N updates (200000; with --quick only when given)
  --memory-only    the API's memory alone, into the page of an earlier run: bytes are the same on a slower machine
  --rounds N       rounds of the variants of the targets (3; with --quick 2)
  --seconds N      of load in a run (4; with --quick 2)
  --hold-seconds N of load in a run with another session's transaction held open (as the others; pg_dump three times that)
  --only TEXT      the variants whose name holds TEXT; writes no file
  --profile        the variants of --only, else one hot account, with a CPU profile of the API; writes no file
  --driver NAME    wrk or autocannon (wrk where it is installed)`;

const { values: args } = parseArgs({
  options: {
    ...{ quick: { type: 'boolean' }, growth: { type: 'boolean' }, profile: { type: 'boolean' } },
    ...{ updates: { type: 'string' }, rounds: { type: 'string' }, seconds: { type: 'string' } },
    ...{ 'hold-seconds': { type: 'string' }, 'memory-only': { type: 'boolean' } },
    ...{ only: { type: 'string' }, driver: { type: 'string' }, help: { type: 'boolean' } },
  },
});
const MEMORY_UPDATES = 200_000;
/** Of the machine, that others may use during a load; the kernel's own threads come to half of it. */
const FOREIGN_SHARE_MAX = 0.1;
const ATTEMPTS_MAX = 3;
const DISTURBED_PAUSE_MS = 5000;

function wholeOption<Fallback extends number | undefined>(
  name: 'updates' | 'rounds' | 'seconds' | 'hold-seconds',
  fallback: Fallback,
): number | Fallback {
  const value = args[name];
  if (value === undefined) return fallback;
  if (!/^[1-9]\d{0,8}$/.test(value)) throw new Error(`--${name} has to be a whole number`);
  return Number(value);
}

if (args.help) console.log(HELP);
else await main();

async function main(): Promise<void> {
  const { quick = false, only, 'memory-only': memoryOnly = false } = args;
  const seconds = wholeOption('seconds', quick ? 2 : 4);
  const rounds = wholeOption('rounds', quick ? 2 : 3);
  const updates = wholeOption('updates', quick ? 0 : MEMORY_UPDATES);
  const holdSeconds = wholeOption('hold-seconds', undefined);
  const plan = (quick ? quickPlan(rounds) : fullPlan(rounds))
    .filter(({ variant }) => nameOf(variant).includes(only ?? ''))
    .map((planned) => held(planned, holdSeconds && holdSeconds / seconds));
  const before = readResults();
  if (memoryOnly && !before) throw new Error('--memory-only adds to the page of an earlier run, and there is none');
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

    const summaries = summarize(await measureAll(bench, plan, seconds, run));
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
    await publish(results); // what follows is long: until it is done, that of an earlier run stands
    if (updates > 0) {
      results.memory = await memoryOf(bench, run, updates);
      results.targets = judge(summaries, results.memory);
      await publish(results);
    }
    if (args.growth) {
      results.growth = await growthOf(bench, seconds, run);
      await publish(results);
    }
    printTargets(results.targets);
    console.log('Written: docs/benchmarks.md');
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

/** Round by round, so that what changes on the machine meanwhile meets all variants alike. */
async function measureAll(bench: Bench, plan: readonly Planned[], seconds: number, driver: Driver): Promise<Run[]> {
  const runs: Run[] = [];
  const rounds = Math.max(0, ...plan.map((planned) => planned.rounds));
  for (let round = 1; round <= rounds; round += 1) {
    for (const { variant } of plan.filter((planned) => planned.rounds >= round)) {
      const run = await measureUndisturbed(bench, variant, seconds, driver);
      runs.push(run);
      console.log(`[${round}/${rounds}] ${lineOf(run)}`);
    }
  }
  return runs;
}

/** Again while somebody else uses the machine, a bounded number of times; the least disturbed run counts. */
async function measureUndisturbed(bench: Bench, variant: Variant, seconds: number, driver: Driver): Promise<Run> {
  let best: Run | undefined;
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt += 1) {
    const run = await measure(bench, variant, { seconds, driver });
    if (!best || run.foreignShare < best.foreignShare) best = run;
    if (run.problems.length > 0) return run; // not a matter of noise
    if (run.foreignShare <= FOREIGN_SHARE_MAX) break;
    console.log(`  others used ${whole(100 * run.foreignShare)} % of the machine: ${lineOf(run)}`);
    await delay(DISTURBED_PAUSE_MS);
  }
  return best as Run;
}

function lineOf({ name, acceptedPerSecond, p50Ms, p99Ms, endToEndPerSecond, drainPerSecond, problems }: Run): string {
  return [
    `${name}: ${whole(acceptedPerSecond)}/s, p50 ${short(p50Ms)} ms, p99 ${short(p99Ms)} ms`,
    endToEndPerSecond !== undefined && `${whole(endToEndPerSecond)}/s end to end`,
    drainPerSecond !== undefined && `drained at ${whole(drainPerSecond)}/s`,
    problems.length > 0 && `VOID: ${problems.join('; ')}`,
  ]
    .filter(Boolean)
    .join(', ');
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
  await publish({ ...before, memory, targets });
  printTargets(targets);
  console.log('Written: docs/benchmarks.md');
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
