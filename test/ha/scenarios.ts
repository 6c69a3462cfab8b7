// What happens to the cluster while clients use the service.
import { setTimeout as delay } from 'node:timers/promises';
import type { Evidence } from '../chaos/faults/fault.ts';
import { now } from '../chaos/history.ts';
import type { Cluster } from './cluster.ts';
import type { Mode } from './configuration.ts';
import type { Machine } from './machine.ts';

export interface Scenario {
  name: string;
  /** For the table. */
  title: string;
  mode: Mode;
  /** Whether the service connects through PgBouncer. */
  isPooled?: boolean;
  /**
   * Strikes, and returns when the cluster is whole again. The evidence says when there was no
   * primary.
   */
  strike(cluster: Cluster, evidence: Evidence): Promise<void>;
}

/** Has what happens between noted as one change of the primary. */
async function changing(evidence: Evidence, during: () => Promise<unknown>): Promise<void> {
  const startMs = now();
  await during();
  evidence.stops.push({ startMs, endMs: now() });
}

/** How long the others go on without a machine before it is back. */
const ABSENT_MS = 5000;
/** How long standbys get nothing before their leader dies. */
const LAG_MS = 1500;

/**
 * The leader is struck, another one takes over and works for a while, and the old one comes back.
 */
function failover(
  strike: (cluster: Cluster, leader: Machine) => void,
  comeBack: (cluster: Cluster, leader: Machine) => void,
): Scenario['strike'] {
  return async (cluster, evidence) => {
    const leader = await cluster.whole();
    await changing(evidence, async () => {
      strike(cluster, leader);
      await cluster.replaced(leader);
    });
    await delay(ABSENT_MS);
    comeBack(cluster, leader);
    await isWholeAgain(cluster, evidence);
    await delay(ABSENT_MS);
    await isWholeAgain(cluster, evidence);
  };
}

/** One that stays in pieces is judged all the same: what it lost counts for more. */
async function isWholeAgain(cluster: Cluster, evidence: Evidence): Promise<void> {
  await cluster.whole().catch(({ message }: Error) => evidence.broken.push(message));
}

async function switchOver(cluster: Cluster, evidence: Evidence): Promise<void> {
  const leader = await cluster.whole();
  await changing(evidence, async () => {
    await cluster.switchOver(leader);
    await cluster.replaced(leader);
  });
  await cluster.whole();
  await delay(ABSENT_MS);
}

export const scenarios: readonly Scenario[] = [
  { name: 'switchover', title: 'planned switchover', mode: 'synchronous', strike: switchOver },
  {
    name: 'pooled-switchover',
    title: 'a switchover through PgBouncer',
    mode: 'synchronous',
    isPooled: true,
    strike: switchOver,
  },
  {
    name: 'server-kill',
    title: 'PostgreSQL of the leader killed',
    mode: 'synchronous',
    async strike(cluster, evidence) {
      const leader = await cluster.whole();
      await changing(evidence, () => cluster.restarted(leader, () => leader.signal('SIGKILL', 'postgres')));
      await delay(ABSENT_MS);
      await isWholeAgain(cluster, evidence);
    },
  },
  {
    name: 'leader-kill',
    title: 'PostgreSQL and Patroni of the leader killed',
    mode: 'synchronous',
    strike: failover(
      (_, leader) => leader.signal('SIGKILL', 'patroni', 'postgres'),
      (cluster, leader) => cluster.boot(leader, 'patroni'),
    ),
  },
  {
    name: 'machine-loss',
    title: 'machine of the leader lost',
    mode: 'synchronous',
    strike: failover(lose, bringBack),
  },
  {
    // As a disk does that hangs. Its Patroni waits for an answer in the middle of its work, and
    // goes on from there.
    name: 'server-freeze',
    title: 'PostgreSQL of the leader frozen, and back',
    mode: 'synchronous',
    strike: failover(
      (_, leader) => leader.signal('SIGSTOP', 'postgres'),
      (_, leader) => leader.signal('SIGCONT', 'postgres'),
    ),
  },
  {
    name: 'leader-freeze',
    title: 'PostgreSQL and Patroni of the leader frozen, and back',
    mode: 'synchronous',
    strike: failover(
      (_, leader) => leader.signal('SIGSTOP', 'patroni', 'postgres'),
      (_, leader) => leader.signal('SIGCONT', 'postgres', 'patroni'),
    ),
  },
  {
    name: 'machine-freeze',
    title: 'machine of the leader frozen, etcd too, and back',
    mode: 'synchronous',
    strike: failover(
      (_, leader) => leader.signal('SIGSTOP'),
      (_, leader) => leader.signal('SIGCONT'),
    ),
  },
  {
    name: 'network-cut',
    title: 'leader cut off from the other machines, not from its clients',
    mode: 'synchronous',
    strike: failover(
      ({ network }, leader) => network.cut(leader, true),
      ({ network }, leader) => network.cut(leader, false),
    ),
  },
  {
    name: 'black-hole',
    title: 'packets to and from the leader vanish',
    mode: 'synchronous',
    strike: failover(
      ({ network }, leader) => network.blackHole(leader, true),
      ({ network }, leader) => network.blackHole(leader, false),
    ),
  },
  {
    name: 'standby-loss',
    title: 'machine of the synchronous standby lost',
    mode: 'synchronous',
    async strike(cluster) {
      await cluster.whole();
      const [standby] = await cluster.standbys();
      if (!standby) throw new Error('there is no standby');
      lose(cluster, standby);
      await delay(3 * ABSENT_MS);
      bringBack(cluster, standby);
      await cluster.whole();
    },
  },
  {
    name: 'no-standby',
    title: 'PostgreSQL of both standbys frozen for 15 s',
    mode: 'synchronous',
    async strike(cluster) {
      await cluster.whole();
      const standbys = await cluster.standbys();
      for (const standby of standbys) standby.signal('SIGSTOP', 'patroni', 'postgres');
      await delay(3 * ABSENT_MS);
      for (const standby of standbys) standby.signal('SIGCONT', 'postgres', 'patroni');
      await cluster.whole();
    },
  },
  {
    name: 'asynchronous-loss',
    title: 'standbys lag, and the machine of the leader is lost',
    mode: 'asynchronous',
    async strike(cluster, evidence) {
      const leader = await cluster.whole();
      const standbys = await cluster.standbys();
      for (const standby of standbys) cluster.network.blackHole(standby, true);
      await delay(LAG_MS);
      await changing(evidence, async () => {
        lose(cluster, leader);
        for (const standby of standbys) cluster.network.blackHole(standby, false);
        await cluster.replaced(leader);
      });
      await delay(ABSENT_MS);
      bringBack(cluster, leader);
      await cluster.whole();
      await delay(ABSENT_MS);
    },
  },
];

function lose({ network }: Cluster, machine: Machine): void {
  network.blackHole(machine, true); // a machine that is gone refuses nothing
  machine.signal('SIGKILL');
}

function bringBack({ network, boot }: Cluster, machine: Machine): void {
  network.blackHole(machine, false);
  boot(machine, 'etcd', 'patroni');
}
