// npm run test:ha: breaks a cluster of PostgreSQL under the running service, and proves afterwards
// that the guarantees held.
import { randomInt } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { commandLine, refuse } from '../../src/cli/command-line.ts';
import { SetupProblem } from '../../src/local/setup-problem.ts';
import { interruptible } from '../bench/interrupt.ts';
import { printReport, writeHistory } from '../chaos/report.ts';
import { closeBackends } from '../support/backends.ts';
import { startReaper } from '../support/reaper.ts';
import { apiFor } from './configuration.ts';
import { findPrograms } from './needs.ts';
import { type RunOptions, runScenario } from './run.ts';
import { type Scenario, scenarios } from './scenarios.ts';
import { headings, type Row, rowOf, tableOf } from './table.ts';

const HELP = `usage: npm run test:ha -- [options]

Starts three machines with etcd, Patroni and PostgreSQL, HAProxy, RabbitMQ and the service, breaks the machines while
clients use the service, and proves that every guarantee held. One scenario after the other, two minutes each. Exit code
1 on a violation. Needs root and these packages of Debian: patroni etcd-server haproxy pgbouncer postgresql
rabbitmq-server. Nothing else on the machine is touched, and nothing is left.

  --only SCENARIO   this scenario alone, or several with commas between
  --seed N          the same accounts and amounts; random by default, and printed
  --patroni PROGRAM instead of the machine's
  --etcd-api API    v2 or v3; by default what the version of Patroni needs (docs/high-availability.md)
  --json FILE       writes the table as JSON too
  --list            names the scenarios`;

const args = commandLine(
  {
    ...{ only: { type: 'string' }, seed: { type: 'string' }, patroni: { type: 'string' }, json: { type: 'string' } },
    ...{ 'etcd-api': { type: 'string' }, list: { type: 'boolean' } },
  },
  HELP,
);

if (args.list) for (const { name, title } of scenarios) console.log(`${name.padEnd(20)} ${title}`);
else
  await main().catch((error) => {
    if (!(error instanceof SetupProblem)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  });

async function main(): Promise<void> {
  const wanted = args.only?.split(',');
  const unknown = wanted?.filter((name) => !scenarios.some((scenario) => scenario.name === name)) ?? [];
  if (unknown.length > 0) refuse(`There is no scenario ${unknown.join(', ')}; --list names them.`);
  const seed = args.seed ?? String(randomInt(2 ** 31));
  if (!/^\d{1,10}$/.test(seed)) refuse(`--seed ${seed}: it must be a number.`);
  const api = args['etcd-api'];
  if (api !== undefined && api !== 'v2' && api !== 'v3') refuse(`--etcd-api ${api}: it must be v2 or v3.`);
  const programs = findPrograms(args.patroni);
  console.log(`Patroni ${programs.patroniVersion.join('.')}, --seed ${seed}`);
  const rows: Row[] = [];
  for (const scenario of scenarios.filter(({ name }) => wanted?.includes(name) ?? true)) {
    const reaper = startReaper();
    const logs = mkdtempSync(path.join(tmpdir(), 'highload-balance-ha-'));
    const over = interruptible(async () => {
      await Promise.all([reaper.close(), closeBackends()]);
      rmSync(logs, { recursive: true, force: true });
    });
    try {
      rows.push(await run(scenario, { reaper, logs, seed: Number(seed), programs, api: api ?? apiFor(programs) }));
    } finally {
      await reaper.close();
      over();
    }
  }
  console.log(`\n${tableOf(headings, rows)}`);
  if (args.json) writeFileSync(args.json, `${JSON.stringify(rows, null, 2)}\n`);
  if (rows.some(({ violations }) => violations > 0)) process.exitCode = 1;
}

async function run(scenario: Scenario, options: RunOptions): Promise<Row> {
  console.log(`\n${scenario.title}`);
  const outcome = await runScenario(scenario, options);
  const { report } = outcome;
  if (report.violations.length > 0) {
    printReport(report, console.log);
    console.log(`The history around the violations: ${writeHistory(report)}`);
  }
  return rowOf(scenario, outcome);
}
