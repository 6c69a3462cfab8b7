// One scenario: the fault suite with a cluster as its database, and one fault.

import { read } from '../chaos/clients/accounts.ts';
import { beCareful } from '../chaos/clients/careful.ts';
import { updates } from '../chaos/clients/client.ts';
import type { Crew } from '../chaos/clients/clients.ts';
import { holds } from '../chaos/clients/holds.ts';
import { transfers } from '../chaos/clients/transfers.ts';
import { now } from '../chaos/history.ts';
import type { Report } from '../chaos/report.ts';
import { runSuite } from '../chaos/suite.ts';
import type { Reaper } from '../support/reaper.ts';
import type { Cluster } from './cluster.ts';
import type { EtcdApi } from './configuration.ts';
import { isLost, withoutLost } from './loss.ts';
import type { Programs } from './needs.ts';
import { checkReported } from './reported.ts';
import type { Scenario } from './scenarios.ts';
import { startServers } from './servers.ts';

/**
 * Together about a hundred operations a second, all of them retried until their outcome is known;
 * and one that reads.
 */
const CREW: Crew = {
  careful: { count: 4, run: (client) => beCareful(client, { next: updates(client) }) },
  transfer: { count: 1, run: (client) => beCareful(client, transfers(client)) },
  holder: { count: 1, run: (client) => beCareful(client, holds(client)) },
  reader: { count: 1, run: read },
};
const HEAL_MS = 120_000;

export interface RunOptions {
  reaper: Reaper;
  /** A folder, deleted after a run without violations. */
  logs: string;
  programs: Programs;
  api: EtcdApi;
  seed: number;
}

export interface Outcome {
  report: Report;
  /** From the strike until another machine led; null where none had to. */
  leaderlessMs: number | null;
  /** Operations that were answered as applied and that the database lost. */
  lost: number;
}

export async function runScenario(scenario: Scenario, options: RunOptions): Promise<Outcome> {
  const { reaper, logs, programs, api, seed } = options;
  const { name, mode, isPooled = false } = scenario;
  const outcome = { leaderlessMs: null as number | null, lost: 0 };
  let cluster: Cluster | undefined;
  let struckMs = 0;
  const use = (started: Cluster) => {
    cluster = started;
  };
  const report = await runSuite({
    seed,
    faults: [
      {
        name,
        track: 'servers',
        async inject({ evidence }) {
          struckMs = now();
          await scenario.strike(cluster as Cluster, evidence);
          return true;
        },
      },
    ],
    faultsMs: 0,
    strikesMin: 1,
    healMs: HEAL_MS,
    say: console.log,
    servers: (say) => startServers({ reaper, logs, programs, mode, api, isPooled, use }, say),
    // The settings that an operator has who changes none. The log has what the processes find after
    // a change of the primary.
    environment: { LOG_LEVEL: 'info' },
    crew: CREW,
    judge(input, { apis }) {
      const [stop] = input.evidence.stops;
      if (stop) outcome.leaderlessMs = stop.endMs - stop.startMs;
      outcome.lost = new Set(
        input.history.attempts.filter((one) => isLost(input.final, one)).map(({ operation }) => operation.id),
      ).size;
      const violations = checkReported(input, apis, mode === 'asynchronous');
      if (mode === 'synchronous' || !stop) return { input, violations };
      if (outcome.lost === 0)
        violations.push({ check: 'coverage', what: 'nothing was lost, so nothing was to report' });
      return { input: withoutLost(input, { startMs: struckMs, endMs: stop.endMs }), violations };
    },
  });
  return { report, ...outcome };
}
