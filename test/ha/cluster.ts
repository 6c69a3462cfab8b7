// Three machines with etcd, Patroni and PostgreSQL, as docs/high-availability.md has them.
import { chownSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { serverAccount } from '../../src/local/server-account.ts';
import { SetupProblem } from '../../src/local/setup-problem.ts';
import type { ProcessKeeper } from '../bench/processes.ts';
import { holds } from '../chaos/faults/fault.ts';
import { type EtcdApi, etcdEnvironment, type Mode, PASSWORDS, patroniSettings } from './configuration.ts';
import type { Machine } from './machine.ts';
import type { Programs } from './needs.ts';
import { type Network, startNetwork } from './network.ts';

export interface Cluster {
  readonly network: Network;
  readonly machines: readonly Machine[];
  /**
   * The machine whose server is the primary by its own Patroni; undefined unless there is exactly
   * one.
   */
  leader(): Promise<Machine | undefined>;
  /** The machines that follow, those first that confirm changes. */
  standbys(): Promise<Machine[]>;
  /**
   * Ends the server of a machine, and waits until it, or another, is the primary.
   * @throws when that takes too long.
   */
  restarted(leader: Machine, end: () => void): Promise<void>;
  /** Waits until another machine than this leads. @throws when that takes too long. */
  replaced(leader: Machine): Promise<Machine>;
  /** Waits until one leads and two follow on its timeline. @throws when that takes too long. */
  whole(): Promise<Machine>;
  /** Starts these programs of a machine. */
  boot(machine: Machine, ...programs: ('etcd' | 'patroni')[]): void;
  /** Asks Patroni for a planned change of the leader. */
  switchOver(leader: Machine): Promise<void>;
}

interface Member {
  name: string;
  role: string;
  state: string;
  timeline?: number;
}

const NAMES = ['pg1', 'pg2', 'pg3'];
const START_TIMEOUT_MS = 90_000;
const CHANGE_TIMEOUT_MS = 60_000;
const WHOLE_TIMEOUT_MS = 45_000;
const ANSWER_TIMEOUT_MS = 1000;
const SWITCHOVER_TIMEOUT_MS = 30_000;
/** Newer versions of Patroni say more exactly what a replica does. */
const FOLLOWING = ['running', 'streaming'];

export interface ClusterOptions {
  keeper: ProcessKeeper;
  programs: Programs;
  /** For data; the account of PostgreSQL can reach it. */
  folder: string;
  /** For logs. */
  logs: string;
  mode: Mode;
  api: EtcdApi;
}

export async function startCluster({ keeper, programs, folder, logs, mode, api }: ClusterOptions): Promise<Cluster> {
  const network = await startNetwork(keeper, NAMES);
  const { machines } = network;
  const { uid, gid } = serverAccount();
  const folderOf = ({ name }: Machine) => path.join(folder, name);
  for (const machine of machines) {
    const own = folderOf(machine);
    mkdirSync(own, { mode: 0o700 });
    const options = { folder: own, binaries: programs.binaries, mode, api };
    writeFileSync(path.join(own, 'patroni.yml'), patroniSettings(network, machine, options));
    if (uid !== undefined && gid !== undefined)
      for (const one of [own, path.join(own, 'patroni.yml')]) chownSync(one, uid, gid);
  }
  const boot: Cluster['boot'] = (machine, ...wanted) => {
    const own = folderOf(machine);
    const start = {
      etcd: () => [[programs.etcd], etcdEnvironment(network, machine, own)] as const,
      patroni: () => [[programs.patroni, path.join(own, 'patroni.yml')], {}] as const,
    };
    for (const program of wanted) {
      const [command, env] = start[program]();
      machine.start(command, { logFile: path.join(logs, `${machine.name}-${program}.log`), env });
    }
  };
  const cluster = clusterOf(network, mode, boot);
  for (const machine of machines) boot(machine, 'etcd', 'patroni');
  if (!(await holds(() => cluster.isWhole(), START_TIMEOUT_MS)))
    throw new SetupProblem(`the cluster did not start; its logs: ${logs}`);
  return cluster;
}

function clusterOf(network: Network, mode: Mode, boot: Cluster['boot']): Cluster & { isWhole(): Promise<boolean> } {
  const { machines } = network;
  const leader = async () => {
    const primaries = await Promise.all(machines.map(isPrimary));
    const [first, ...more] = machines.filter((_, place) => primaries[place]);
    return more.length === 0 ? first : undefined;
  };
  const isWhole = async () => {
    const leading = await leader();
    const members = leading && (await membersSeenBy(leading));
    if (members?.length !== machines.length) return false;
    const first = members.find(({ role }) => role === 'leader');
    return (
      members.every(({ role, state }) => role === 'leader' || FOLLOWING.includes(state)) &&
      members.every(({ timeline }) => timeline === first?.timeline) &&
      (mode === 'asynchronous' || members.some(({ role }) => role === 'sync_standby'))
    );
  };
  return {
    network,
    machines,
    boot,
    leader,
    isWhole,
    async standbys() {
      const leading = await leader();
      const members = ((leading && (await membersSeenBy(leading))) ?? []).filter(({ role }) => role !== 'leader');
      const confirming = members.toSorted((one) => (one.role === 'sync_standby' ? -1 : 1));
      return confirming.flatMap(({ name }) => machines.find((machine) => machine.name === name) ?? []);
    },
    async restarted(old, end) {
      const before = await startOf(old);
      end();
      const isAnother = async () => {
        const leading = await leader();
        const start = leading && (await startOf(leading));
        return start !== undefined && (leading !== old || start !== before);
      };
      if (!(await holds(isAnother, CHANGE_TIMEOUT_MS))) throw new Error(`the server of ${old.name} did not come back`);
    },
    async replaced(old) {
      let next: Machine | undefined;
      const isThere = async () => {
        const primaries = await Promise.all(machines.map(async (one) => one !== old && (await isPrimary(one))));
        next = machines[primaries.indexOf(true)];
        return next !== undefined;
      };
      if (!(await holds(isThere, CHANGE_TIMEOUT_MS)) || !next)
        throw new Error(`no machine leads instead of ${old.name}`);
      return next;
    },
    async whole() {
      if (!(await holds(isWhole, WHOLE_TIMEOUT_MS))) {
        const leading = await leader();
        const members = leading && (await membersSeenBy(leading));
        throw new Error(`the cluster is not whole again: ${JSON.stringify(members ?? 'nobody leads')}`);
      }
      return (await leader()) as Machine;
    },
    async switchOver({ name, address }) {
      const answer = await fetch(`http://${address}:8008/switchover`, {
        method: 'POST',
        headers: { authorization: `Basic ${Buffer.from(`patroni:${PASSWORDS.patroni}`).toString('base64')}` },
        body: JSON.stringify({ leader: name }),
        signal: AbortSignal.timeout(SWITCHOVER_TIMEOUT_MS),
      });
      if (answer.status !== 200) throw new Error(`Patroni refused the switchover: ${await answer.text()}`);
    },
  };
}

async function isPrimary({ address }: Machine): Promise<boolean> {
  const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  const answer = await fetch(`http://${address}:8008/primary`, { signal }).catch(() => undefined);
  return answer?.status === 200;
}

async function membersSeenBy({ address }: Machine): Promise<Member[] | undefined> {
  const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  const answer = await fetch(`http://${address}:8008/cluster`, { signal }).catch(() => undefined);
  return answer?.ok ? ((await answer.json()) as { members: Member[] }).members : undefined;
}

/**
 * When its server was started; undefined while it does not run. Patroni keeps the lock while it
 * starts one again.
 */
async function startOf({ address }: Machine): Promise<string | undefined> {
  const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  const answer = await fetch(`http://${address}:8008/patroni`, { signal }).catch(() => undefined);
  const { state, postmaster_start_time } = ((await answer?.json()) ?? {}) as Record<string, string>;
  return state === 'running' ? postmaster_start_time : undefined;
}
