// What happens to the cluster while clients use the service.
import { setTimeout as delay } from 'node:timers/promises';
import type { Evidence } from '../chaos/faults/fault.ts';
import { now } from '../chaos/history.ts';
import type { Cluster } from './cluster.ts';
import type { Mode } from './configuration.ts';

export interface Scenario {
  name: string;
  /** For the table. */
  title: string;
  mode: Mode;
  /** Strikes, and returns when the cluster is whole again. */
  strike(cluster: Cluster, evidence: Evidence): Promise<void>;
}

/** Has what happens between noted as one change of the primary. */
async function changing(evidence: Evidence, during: () => Promise<unknown>): Promise<void> {
  const startMs = now();
  await during();
  evidence.stops.push({ startMs, endMs: now() });
}

export const scenarios: readonly Scenario[] = [
  {
    name: 'switchover',
    title: 'planned switchover',
    mode: 'synchronous',
    async strike(cluster, evidence) {
      const leader = await cluster.whole();
      await changing(evidence, async () => {
        await cluster.switchOver(leader);
        await cluster.replaced(leader);
      });
      await cluster.whole();
      await delay(1000);
    },
  },
];
