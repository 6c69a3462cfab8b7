// The table of a run: a row for each scenario.
import type { Outcome } from './run.ts';
import type { Scenario } from './scenarios.ts';

export interface Row {
  scenario: string;
  mode: string;
  /** Null where the primary stayed. */
  leaderlessMs: number | null;
  /** The longest time without an answer 200, while the scenario struck. */
  refusedMs: number;
  /** Operations that were answered 200 or 201, retries not counted. */
  answered: number;
  /**
   * Operations that were answered as applied, and are not in the database. Synchronous: each is a
   * violation too.
   */
  lost: number;
  /** That took effect twice, or whose number was given to another change. */
  doubled: number;
  /** Attempts without an answer, or with outcome_unknown. */
  unknown: number;
  violations: number;
}

export const headings = [
  'scenario',
  'replication',
  'new primary',
  'no 200 for',
  'answered',
  'lost',
  'doubled',
  'unknown',
  'violations',
];

/** Checks that say that an operation, or a version, was used more than once. */
const TWICE = ['once', 'gapless', 'epochs'];

export function rowOf({ title, mode }: Scenario, { report, leaderlessMs, lost }: Outcome): Row {
  const { history, timeline, violations } = report;
  const answered = history.attempts.filter(({ result }) => result.kind === 'applied' && !result.replayed);
  const [strike] = timeline;
  const { startMs = 0, endMs = 0 } = strike ?? {};
  const times = history.attempts
    .filter(({ result, endMs: atMs }) => result.kind === 'applied' && atMs > startMs && atMs < endMs)
    .map(({ endMs: atMs }) => atMs)
    .sort((one, other) => one - other);
  const gaps = [...times, endMs].map((atMs, place) => atMs - (times[place - 1] ?? startMs));
  return {
    scenario: title,
    mode,
    leaderlessMs,
    refusedMs: Math.round(Math.max(...gaps)),
    answered: answered.length,
    lost,
    doubled: violations.filter(({ check }) => TWICE.includes(check)).length,
    unknown: history.attempts.filter(({ result }) => result.kind === 'unknown').length,
    violations: violations.length,
  };
}

/** In Markdown. */
export function tableOf(columns: readonly string[], rows: readonly Row[]): string {
  const cells = rows.map(
    ({ scenario, mode, leaderlessMs, refusedMs, answered, lost, doubled, unknown, violations }) => [
      ...[scenario, mode, leaderlessMs === null ? 'none' : seconds(leaderlessMs), seconds(refusedMs)],
      ...[answered, lost, doubled, unknown, violations].map((count) => count.toLocaleString('en')),
    ],
  );
  const all = [columns, ...cells];
  const widths = columns.map((_, place) => Math.max(...all.map((row) => row[place]?.length ?? 0)));
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, place) => (place < 2 ? cell.padEnd(widths[place]!) : cell.padStart(widths[place]!))).join(' | ')} |`;
  const rule = `| ${widths.map((width, place) => (place < 2 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`;
  return [line(columns), rule, ...cells.map(line)].join('\n');
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
