// docs/benchmarks/results.json: everything that was measured. Parts that a run does not measure stay from the run before.
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
export const DOCS_FOLDER = path.join(ROOT, 'docs');
export const RESULTS_FOLDER = path.join(DOCS_FOLDER, 'benchmarks');
const FILE = path.join(RESULTS_FOLDER, 'results.json');

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

export function readResults(): Results | undefined {
  return existsSync(FILE) ? (JSON.parse(readFileSync(FILE, 'utf8')) as Results) : undefined;
}

export function writeResults(results: Results): void {
  mkdirSync(RESULTS_FOLDER, { recursive: true });
  writeFileSync(FILE, `${JSON.stringify(results, rounded, 2)}\n`);
  // The lint of this repository looks at JSON too.
  spawnSync(path.join(ROOT, 'node_modules', '.bin', 'biome'), ['format', '--write', FILE], { stdio: 'ignore' });
}

/** Four digits say what there is to say. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;
}
