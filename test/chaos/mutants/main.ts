// npm run test:mutants: shows that the fault suite can fail. Each mutant breaks a guarantee in a copy of the project; the
// suite has to notice by one of the checks that the mutant names. First of all the copy as it is has to pass.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { commandLine, refuse } from '../../../src/cli/command-line.ts';
import { interruptible } from '../../bench/interrupt.ts';
import { faults } from '../faults/faults.ts';
import { makeCopy } from './copy.ts';
import type { Mutant } from './mutant.ts';
import { mutants } from './mutants.ts';

const HELP = `usage: npm run test:mutants -- [options]

Breaks each guarantee on purpose, in a copy of the project, and runs the fault suite against it. Exit code 1 when a mutant
survives, or when the project as it is does not pass. About a minute each.

  --only NAME      this mutant alone, or several with commas between
  --seed N         of the suite (1)
  --seconds S      how long faults strike in a run (15)
  --json FILE      writes the table as JSON too
  --list           names the mutants`;

const args = commandLine(
  {
    ...{ only: { type: 'string' }, seed: { type: 'string' }, seconds: { type: 'string' }, json: { type: 'string' } },
    list: { type: 'boolean' },
  },
  HELP,
);

/** A mutant that heals not at all is waited for so long. */
const HEAL_SECONDS = 20;
/** The project as it is gets more: it has to heal. */
const HEAL_SECONDS_ORIGINAL = 120;
const RUN_TIMEOUT_MS = 240_000;
/** Timing decides whether a mutant meets its moment; a fault that did not find its own is no verdict. */
const ATTEMPTS_MAX = 2;

const ORIGINAL: Mutant = {
  name: '(the project as it is)',
  breaks: 'nothing',
  edits: [],
  faults: [...new Set(mutants.flatMap((mutant) => mutant.faults))],
  expected: [],
};

interface Row {
  mutant: string;
  breaks: string;
  /** Checks that found something, with how often. */
  found: Record<string, number>;
  caught: boolean;
  seconds: number;
}

if (args.list) for (const { name, breaks } of mutants) console.log(`${name.padEnd(36)} ${breaks}`);
else await main();

async function main(): Promise<void> {
  const wanted = args.only?.split(',');
  const unknown = wanted?.filter((name) => !mutants.some((mutant) => mutant.name === name)) ?? [];
  if (unknown.length > 0) refuse(`There is no mutant ${unknown.join(', ')}; --list names them.`);
  for (const { name, faults: needed } of mutants) {
    const strange = needed.filter((fault) => !faults.some((one) => one.name === fault));
    if (strange.length > 0) throw new Error(`${name} needs a fault that does not exist: ${strange.join(', ')}`);
  }
  let running: ChildProcess | undefined;
  const over = interruptible(async () => {
    running?.kill('SIGTERM');
    while (running && running.exitCode === null && running.signalCode === null) await delay(100);
  });
  const runOne = (mutant: Mutant) => run(mutant, (child) => (running = child));

  const rows: Row[] = [];
  const original = await runOne(ORIGINAL);
  print(original);
  rows.push(original);
  for (const mutant of original.caught ? mutants.filter(({ name }) => wanted?.includes(name) ?? true) : []) {
    let row = await runOne(mutant);
    for (let attempt = 2; !row.caught && attempt <= ATTEMPTS_MAX; attempt += 1) row = await runOne(mutant);
    print(row);
    rows.push(row);
  }
  over();
  if (args.json) writeFileSync(args.json, `${JSON.stringify(rows, null, 2)}\n`);
  const survivors = rows.filter(({ caught }) => !caught).map(({ mutant }) => mutant);
  if (survivors.length > 0) process.exitCode = 1;
  console.log(
    survivors.length === 0 ? `${rows.length - 1} mutants, all caught` : `NOT AS EXPECTED: ${survivors.join(', ')}`,
  );
}

async function run(mutant: Mutant, onStart: (child: ChildProcess) => void): Promise<Row> {
  const startedMs = performance.now();
  const isOriginal = mutant === ORIGINAL;
  const copy = makeCopy(mutant.edits);
  const report = path.join(copy.folder, 'report.json');
  const options = [
    ...['--seed', args.seed ?? '1', '--minutes', String(Number(args.seconds ?? 15) / 60)],
    ...['--only', mutant.faults.join(','), '--json', report],
    ...['--heal-seconds', String(isOriginal ? HEAL_SECONDS_ORIGINAL : HEAL_SECONDS)],
  ];
  try {
    const child = spawn(process.execPath, [path.join(copy.folder, 'test/chaos/main.ts'), ...options], {
      cwd: copy.folder,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    onStart(child);
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    const timer = setTimeout(() => child.kill('SIGTERM'), RUN_TIMEOUT_MS);
    await new Promise((resolve) => child.once('close', resolve));
    clearTimeout(timer);
    // A run of a mutant leaves its history beside the logs; here nobody reads it.
    const folder = /^The history around the violations: (.*)$/m.exec(output)?.[1];
    if (folder && !isOriginal) rmSync(path.dirname(folder), { recursive: true, force: true });
    const found = existsSync(report) ? checksIn(report) : {};
    const ended = existsSync(report) ? found : { 'no report': 1 };
    const isCaught = isOriginal
      ? existsSync(report) && Object.keys(found).length === 0
      : mutant.expected.some((check) => check in found);
    if (!isCaught) console.log(output);
    return {
      mutant: mutant.name,
      breaks: mutant.breaks,
      found: ended,
      caught: isCaught,
      seconds: Math.round((performance.now() - startedMs) / 1000),
    };
  } finally {
    copy.remove();
  }
}

function checksIn(report: string): Record<string, number> {
  const { found } = JSON.parse(readFileSync(report, 'utf8')) as { found: { check: string }[] };
  const counts: Record<string, number> = {};
  for (const { check } of found) counts[check] = (counts[check] ?? 0) + 1;
  return counts;
}

function print({ mutant, found, caught, seconds }: Row): void {
  const checks = Object.entries(found).map(([check, times]) => `${check} (${times})`);
  const isOriginal = mutant === ORIGINAL.name;
  const verdict = isOriginal ? (caught ? 'passed' : 'DID NOT PASS') : caught ? 'caught' : 'SURVIVED';
  console.log(`${mutant.padEnd(36)} ${verdict.padEnd(9)} ${String(seconds).padStart(4)} s  ${checks.join(', ')}`);
}
