// The rounds of a plan, in a bounded time: however busy the machine is, they end.
import { setTimeout as delay } from 'node:timers/promises';
import type { Run } from './measure.ts';
import { short, whole } from './numbers.ts';
import type { Planned, Variant } from './variants.ts';

/** Of the machine, that others may use during a load; the kernel's own threads come to half of it. */
const FOREIGN_SHARE_MAX = 0.1;
const ATTEMPTS_MAX = 3;

export interface Times {
  /** After it no run begins. */
  limitMs: number;
  /** Before a run that others disturbed is made again. */
  pauseMs: number;
}

/** Round by round, so that what changes on the machine meanwhile meets all variants alike. */
export async function measureRounds(
  plan: readonly Planned[],
  measureOnce: (variant: Variant) => Promise<Run>,
  { limitMs, pauseMs }: Times,
  say: (line: string) => void,
): Promise<Run[]> {
  const rounds = Math.max(0, ...plan.map((planned) => planned.rounds));
  const due = Array.from({ length: rounds }, (_, index) => index + 1).flatMap((round) =>
    plan.filter((planned) => planned.rounds >= round).map(({ variant }) => ({ round, variant })),
  );
  const runs: Run[] = [];
  const startedAtMs = performance.now();
  const tookMs = () => performance.now() - startedAtMs;
  /** Whether the runs that are left fit in, at the pace so far, with a pause and one more. */
  const hasTimeToRepeat = () => {
    const left = due.length - runs.length - 1;
    return tookMs() + pauseMs + (tookMs() / (runs.length + 1)) * (left + 1) < limitMs;
  };
  for (const { round, variant } of due) {
    if (tookMs() >= limitMs) {
      say(
        `${short(limitMs / 60_000)} minutes are over: ${due.length - runs.length} of ${due.length} runs were not made`,
      );
      break;
    }
    let run = await measureOnce(variant);
    for (let attempt = 1; isDisturbed(run); attempt += 1) {
      say(`  others used ${whole(100 * run.foreignShare)} % of the machine: ${lineOf(run)}`);
      if (attempt === ATTEMPTS_MAX || !hasTimeToRepeat()) break;
      await delay(pauseMs);
      const again = await measureOnce(variant);
      // What went wrong is not a matter of noise; else the least disturbed run counts.
      if (again.problems.length > 0 || again.foreignShare < run.foreignShare) run = again;
    }
    runs.push(run);
    say(`[${round}/${rounds}] ${lineOf(run)}`);
  }
  return runs;
}

const isDisturbed = ({ problems, foreignShare }: Run) => problems.length === 0 && foreignShare > FOREIGN_SHARE_MAX;

export function lineOf({
  name,
  acceptedPerSecond,
  p50Ms,
  p99Ms,
  endToEndPerSecond,
  drainPerSecond,
  problems,
}: Run): string {
  return [
    `${name}: ${whole(acceptedPerSecond)}/s, p50 ${short(p50Ms)} ms, p99 ${short(p99Ms)} ms`,
    endToEndPerSecond !== undefined && `${whole(endToEndPerSecond)}/s end to end`,
    drainPerSecond !== undefined && `drained at ${whole(drainPerSecond)}/s`,
    problems.length > 0 && `VOID: ${problems.join('; ')}`,
  ]
    .filter(Boolean)
    .join(', ');
}
