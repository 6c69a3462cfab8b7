// One scenario: the fault suite with a cluster as its database, and one fault.

import { beCareful } from '../chaos/clients/careful.ts';
import { updates } from '../chaos/clients/client.ts';
import type { Crew } from '../chaos/clients/clients.ts';
import { holds } from '../chaos/clients/holds.ts';
import { transfers } from '../chaos/clients/transfers.ts';
import type { Report } from '../chaos/report.ts';
import { runSuite } from '../chaos/suite.ts';
import type { Reaper } from '../reaper.ts';
import type { Cluster } from './cluster.ts';
import type { EtcdApi } from './configuration.ts';
import type { Programs } from './needs.ts';
import type { Scenario } from './scenarios.ts';
import { startServers } from './servers.ts';

/** Together about a hundred operations a second, all of them retried until their outcome is known. */
const CREW: Crew = {
  careful: { count: 3, run: (client) => beCareful(client, { next: updates(client) }) },
  transfer: { count: 1, run: (client) => beCareful(client, transfers(client)) },
  holder: { count: 1, run: (client) => beCareful(client, holds(client)) },
};
const HEAL_MS = 120_000;

export interface RunOptions {
  reaper: Reaper;
  programs: Programs;
  api: EtcdApi;
  seed: number;
}

export function runScenario(scenario: Scenario, { reaper, programs, api, seed }: RunOptions): Promise<Report> {
  const { name, mode } = scenario;
  let cluster: Cluster | undefined;
  const use = (started: Cluster) => {
    cluster = started;
  };
  return runSuite({
    seed,
    faults: [
      {
        name,
        track: 'servers',
        async inject({ evidence }) {
          await scenario.strike(cluster as Cluster, evidence);
          return true;
        },
      },
    ],
    faultsMs: 0,
    strikesMin: 1,
    healMs: HEAL_MS,
    say: console.log,
    servers: (say) => startServers({ reaper, programs, mode, api, use }, say),
    // The settings that an operator has who changes none. The log has what the processes find after a change of the primary.
    environment: { LOG_LEVEL: 'info' },
    crew: CREW,
  });
}
