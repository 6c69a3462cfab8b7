// The table and the judgement, on the terminal and as benchmarks.md.
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { table } from '../../src/cli/table.ts';
import type { Chart } from './charts.ts';
import { short, whole } from './numbers.ts';
import type { Results } from './results.ts';
import type { Summary } from './summary.ts';
import { type Cpu, GROUPS } from './system.ts';
import type { Target } from './targets.ts';
import { measured } from './variants.ts';

const SUSTAINED_FACTOR = measured.hotRunning.loadFactor;
const HEADS = ['variant', 'accepted/s', 'p50 ms', 'p99 ms', ...GROUPS, 'end to end/s', 'drain/s', 'verify'];

const optional = (value: number | undefined) => (value === undefined ? '-' : whole(value));
const cpuCells = (cpu: Cpu) => GROUPS.map((group) => (cpu[group] < 0.0005 ? '-' : cpu[group].toFixed(3)));

function cells(summary: Summary): string[] {
  const { name, acceptedPerSecond, p50Ms, p99Ms, cpu, endToEndPerSecond, drainPerSecond, verifiedEntries, problems } =
    summary;
  const proof = verifiedEntries === undefined ? '-' : 'passed';
  return [
    name,
    whole(acceptedPerSecond),
    short(p50Ms),
    short(p99Ms),
    ...cpuCells(cpu),
    optional(endToEndPerSecond),
    optional(drainPerSecond),
    problems.length > 0 ? `VOID: ${problems.join('; ')}` : proof,
  ];
}

export function printTable(summaries: readonly Summary[]): void {
  print([HEADS, ...summaries.map(cells)]);
  const partly = summaries.filter(({ notAccepted }) => notAccepted > 0);
  for (const { name, notAccepted } of partly) console.log(`${name}: ${whole(notAccepted)} requests not answered 200`);
}

const verdict = ({ met }: Target) => (met === undefined ? '-' : met ? 'met' : 'MISSED');

export function printTargets(targets: readonly Target[]): void {
  print([
    ['measured', 'target', 'figure', ''],
    ...targets.map((target) => [target.measured, target.target, target.figure, verdict(target)]),
  ]);
}

const print = (rows: string[][]) => console.log(`${table(rows)}\n`);

const markdownTable = (heads: string[], rows: string[][]) =>
  [heads, heads.map((_, column) => (column === 0 ? '---' : '---:')), ...rows]
    .map((row) => `| ${row.join(' | ')} |`)
    .join('\n');

export async function writePage(folder: string, results: Results, charts: readonly Chart[]): Promise<void> {
  const file = path.join(folder, 'benchmarks.md');
  const present = await readFile(file, 'utf8').catch(() => '');
  await writeFile(file, withOthers(page(results, charts), present));
}

/** What other commands measured is put into the page by hand, after this heading. */
const OTHERS = '## Measured by other commands\n';

/** A new page, with what the present one has from other commands. */
export function withOthers(page: string, present: string): string {
  const start = present.indexOf(OTHERS);
  return start === -1 ? page : `${page.trimEnd()}\n\n${present.slice(start)}`;
}

function page(results: Results, charts: readonly Chart[]): string {
  const { date, command, driver, secondsPerRun, machine, summaries, targets, memory, growth, sql } = results;
  const noise = whole(100 * Math.max(...summaries.map(({ foreignShare }) => foreignShare)));
  const drains = summaries.filter(({ drainCpu }) => drainCpu !== undefined);
  return `# Benchmarks

Written by \`${command}\` on ${day(date)}; the raw figures are in [benchmarks/results.json](benchmarks/results.json). The
command starts its own PostgreSQL and RabbitMQ, measures all rows of *Targets* and *All figures* in one go, and removes both
afterwards. Sections with a date of their own were measured on other days, and the machine was another: their figures
compare within one table, not with those of others.

| | |
|---|---|
| machine | ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGigabytes} GB, ${machine.system}; load generator and all servers on it |
| Node | ${machine.node} |
| PostgreSQL | ${machine.postgres}; one connection commits ${whole(machine.commitsPerSecond)} rows a second |
| RabbitMQ | ${machine.broker} |
| load | ${driver}, keep-alive, closed loop: each connection sends its next request when it has the answer |
| service | no API keys (\`AUTH=off\`), one API process and one worker |
| a run | new database, new processes, 2 s warm-up, ${secondsPerRun} s load (one hot account, pipeline running: ${secondsPerRun * SUSTAINED_FACTOR} s); medians of the rounds, variants interleaved |
| noise | others (the kernel's own threads included) used at most ${noise} % of the machine during a load; a run with more than 10 % is repeated |
| sources | ${machine.commit} |

- **ceiling**: this service's HTTP layer (Express, body reading, checking, answering) with a constant instead of a database.
- **usual**: one \`UPDATE account SET balance = balance + $2 ... WHERE balance + $2 >= 0 RETURNING\` a request through a
  \`pg.Pool\` of 10, \`express.json()\` and \`res.json()\`: what a good developer writes first. No event, no ledger, no key.
- **usual transfers**: a transaction that locks both accounts in order, looks at the balance and updates both.
- **usual, same contract**: the \`UPDATE\` of *usual*, and an outbox row in the same statement; this service's relay
  and worker take it from there.
- **this**: this service. *Pipeline running*: relay and worker move events during the load. *Relay deferred*: they start after it.

Updates have no idempotency key unless the row says *keys*. Nothing is bound to the exchange of
events unless the row says *a subscriber*: one process that takes and acknowledges each message. The ledger gets its events
in every row.

## Targets

${markdownTable(
  ['measured', 'target', 'figure', ''],
  targets.map((target) => [
    target.measured,
    target.target,
    target.figure,
    verdict(target).replace('MISSED', '**missed**'),
  ]),
)}

${charts.map(({ file, title }) => `## ${title}\n\n![${title}](benchmarks/${file})`).join('\n\n')}

## All figures

Only updates answered 200 count. The columns ${GROUPS.map((group) => `*${group}*`).join(', ')} are CPU seconds per 1,000 updates of
the load generator, the API (with its relay), the worker, PostgreSQL with its backends, and RabbitMQ; with the pipeline running they
count until the last ledger row. End to end: updates / (start of the load until the last ledger row). Drain: ledger rows / (relay
and worker ready until the last ledger row). A row is void unless \`npm run verify\`'s proof passes after its run.

${markdownTable(HEADS, summaries.map(cells))}

${
  drains.length === 0
    ? ''
    : `Drains, CPU seconds per 1,000 events:

${markdownTable(
  ['after', 'drain/s', ...GROUPS.slice(1)],
  drains.map(({ name, drainPerSecond, drainCpu }) => [
    name,
    optional(drainPerSecond),
    ...cpuCells(drainCpu as Cpu).slice(1),
  ]),
)}
`
}
${memory ? `Memory: ${whole(memory.updates)} updates in ${whole(memory.seconds)} s on ${day(memory.date)} (\`${memory.command}\`), at most ${whole(memory.maxBytes / 2 ** 20)} MB resident.\n` : ''}${
  growth
    ? `
## How cost grows

Measured on ${day(growth.date)} with \`npm run bench -- --growth\`.

${Object.values(growth.series)
  .map(({ title, points }) =>
    markdownTable(
      [title, 'accepted/s', 'p99 ms', 'end to end/s', 'verify'],
      points.map(({ at, acceptedPerSecond, p99Ms, endToEndPerSecond, problems }) => [
        whole(at),
        whole(acceptedPerSecond),
        short(p99Ms),
        optional(endToEndPerSecond),
        problems.length > 0 ? `VOID: ${problems.join('; ')}` : 'passed',
      ]),
    ),
  )
  .join('\n\n')}
`
    : ''
}${
  sql
    ? `
## The SQL function alone

One connection, no HTTP: \`npm run bench:sql\`, ${day(sql.date)}.

${markdownTable(
  ['batch', 'accounts', 'keys', 'updates/s', 'ms a batch'],
  sql.rows.map(({ batch, accounts, keys, updatesPerSecond, batchMs }) => [
    whole(batch),
    accounts,
    keys ? 'yes' : 'no',
    whole(updatesPerSecond),
    short(batchMs),
  ]),
)}
`
    : ''
}`;
}

const day = (date: string) => date.slice(0, 10);
