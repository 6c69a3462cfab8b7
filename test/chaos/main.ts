// npm run test:chaos: breaks a whole system on purpose while clients use it, and proves afterwards that the guarantees held.
import { randomInt } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { commandLine, refuse } from '../../src/cli/command-line.ts';
import { interruptible } from '../bench/interrupt.ts';
import { closeBackends } from '../support/backends.ts';
import { faults } from './faults/faults.ts';
import { printReport, summaryOf, writeHistory } from './report.ts';
import { runSuite } from './suite.ts';

const HELP = `usage: npm run test:chaos -- [options]

Starts PostgreSQL, RabbitMQ, two API processes and two workers of its own, breaks them while clients use them, and proves
that every guarantee held. Exit code 1 on a violation, with the history around it in a file that the output names.

  --seed N         repeats the draws of a run; random by default, and printed
  --minutes M      how long faults strike (1)
  --heal-seconds N how long the system has to heal and drain afterwards (300)
  --only FAULT     this fault alone, or several with commas between
  --json FILE      writes the report as JSON too
  --list           names the faults`;

/** Of every fault, at least. */
const STRIKES_A_MINUTE = 0.5;

const args = commandLine(
  {
    ...{ seed: { type: 'string' }, minutes: { type: 'string' }, only: { type: 'string' }, json: { type: 'string' } },
    ...{ 'heal-seconds': { type: 'string' }, list: { type: 'boolean' } },
  },
  HELP,
);

if (args.list) for (const { name } of faults) console.log(name);
else await main();

async function main(): Promise<void> {
  const seed = numberOption('seed', randomInt(2 ** 31));
  const wanted = args.only?.split(',');
  const unknown = wanted?.filter((name) => !faults.some((fault) => fault.name === name)) ?? [];
  if (unknown.length > 0) refuse(`There is no fault ${unknown.join(', ')}; --list names them.`);
  console.log(`Fault suite: SEED=${seed}`);
  const minutes = numberOption('minutes', 1);
  const over = interruptible(() => closeBackends());
  const report = await runSuite({
    seed,
    faults: faults.filter(({ name }) => wanted?.includes(name) ?? true),
    faultsMs: minutes * 60_000,
    strikesMin: Math.floor(minutes * STRIKES_A_MINUTE),
    healMs: numberOption('heal-seconds', 300) * 1000,
    say: console.log,
  });
  over();
  printReport(report, console.log);
  if (args.json)
    writeFileSync(args.json, `${JSON.stringify({ ...summaryOf(report), found: report.violations }, null, 2)}\n`);
  if (report.violations.length > 0) {
    console.log(`The history around the violations: ${writeHistory(report)}`);
    process.exitCode = 1;
  }
}

function numberOption(name: 'seed' | 'minutes' | 'heal-seconds', fallback: number): number {
  const value = args[name];
  if (value === undefined) return fallback;
  if (!/^\d{1,10}(\.\d+)?$/.test(value)) refuse(`--${name} ${value}: it must be a number.`);
  return Number(value);
}
