// The medians of a variant's rounds.
import type { Run } from './measure.ts';
import { median } from './numbers.ts';
import { type Cpu, GROUPS } from './system.ts';

export interface Summary extends Run {
  rounds: number;
}

/** By name, in the order of their first round. A variant is void when one of its rounds is. */
export function summarize(runs: readonly Run[]): Map<string, Summary> {
  return new Map([...Map.groupBy(runs, ({ name }) => name)].map(([name, rounds]) => [name, summarizeRounds(rounds)]));
}

function summarizeRounds(rounds: Run[]): Summary {
  const [first] = rounds as [Run];
  const middle = (pick: (run: Run) => number) => median(rounds.map(pick));
  const optional = (pick: (run: Run) => number | undefined) => {
    const values = rounds.map(pick).filter((value) => value !== undefined);
    return values.length === 0 ? undefined : median(values);
  };
  const cpu = (pick: (run: Run) => Cpu) =>
    Object.fromEntries(GROUPS.map((group) => [group, middle((run) => pick(run)[group])])) as Cpu;
  const drainCpu = first.drainCpu;
  return {
    ...first,
    rounds: rounds.length,
    accepted: middle((run) => run.accepted),
    acceptedPerSecond: middle((run) => run.acceptedPerSecond),
    p50Ms: middle((run) => run.p50Ms),
    p99Ms: middle((run) => run.p99Ms),
    maxMs: Math.max(...rounds.map((run) => run.maxMs)),
    notAccepted: rounds.reduce((sum, run) => sum + run.notAccepted, 0),
    cpu: cpu((run) => run.cpu),
    endToEndPerSecond: optional((run) => run.endToEndPerSecond),
    drainPerSecond: optional((run) => run.drainPerSecond),
    drainCpu: drainCpu && cpu((run) => run.drainCpu ?? drainCpu),
    outboxBytes: optional((run) => run.outboxBytes),
    apiRssBytes: Math.max(...rounds.map((run) => run.apiRssBytes)),
    foreignShare: Math.max(...rounds.map((run) => run.foreignShare)),
    problems: rounds.flatMap((run) => run.problems),
  };
}
