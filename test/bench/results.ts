// benchmarks/results.json: everything that was measured. Parts that a run does not measure stay from the run before.
// With --publish it is that of docs/, else one in a folder that git ignores.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Machine } from './machine.ts';
import type { MemoryRun } from './memory.ts';
import type { SqlRow } from './sql-measure.ts';
import type { Summary } from './summary.ts';
import type { Target } from './targets.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const DOCS_FOLDER = path.join(ROOT, 'docs');
const REPORT_FOLDER = path.join(ROOT, 'test', 'bench', 'report');

/** The folder of benchmarks.md, and of `benchmarks/` with charts and figures. */
export const folderOf = (isPublished: boolean) => (isPublished ? DOCS_FOLDER : REPORT_FOLDER);
/** For people: `docs/benchmarks.md`. */
export const pageIn = (folder: string) => path.relative(ROOT, path.join(folder, 'benchmarks.md'));
export const chartsIn = (folder: string) => path.join(folder, 'benchmarks');
const fileIn = (folder: string) => path.join(chartsIn(folder), 'results.json');

export interface GrowthPoint {
  at: number;
  acceptedPerSecond: number;
  p99Ms: number;
  endToEndPerSecond: number | undefined;
  problems: string[];
}

export interface Results {
  date: string;
  command: string;
  driver: string;
  secondsPerRun: number;
  machine: Machine;
  summaries: Summary[];
  targets: Target[];
  memory?: (MemoryRun & { command: string }) | undefined;
  growth?: { date: string; series: Record<string, { title: string; points: GrowthPoint[] }> } | undefined;
  sql?: { date: string; rows: SqlRow[] } | undefined;
}

/** Of the run before, in the folder or else in docs/. */
export function readResults(folder: string): Results | undefined {
  const file = [fileIn(folder), fileIn(DOCS_FOLDER)].find((candidate) => existsSync(candidate));
  return file === undefined ? undefined : (JSON.parse(readFileSync(file, 'utf8')) as Results);
}

/** @returns them as they were written: rounded. */
export function writeResults(folder: string, results: Results): Results {
  const file = fileIn(folder);
  mkdirSync(path.dirname(file), { recursive: true });
  const text = JSON.stringify(results, rounded, 2);
  writeFileSync(file, `${text}\n`);
  // The lint of this repository looks at JSON too.
  spawnSync(path.join(ROOT, 'node_modules', '.bin', 'biome'), ['format', '--write', file], { stdio: 'ignore' });
  return JSON.parse(text) as Results;
}

/** Four digits say what there is to say. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;
}
