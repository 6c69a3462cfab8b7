// Machines on one network, and what may happen to it. The machine of the test, with the service and
// its clients, is on it too.
import { execFileSync } from 'node:child_process';
import type { ProcessKeeper } from '../bench/processes.ts';
import { type Machine, startMachine } from './machine.ts';

export interface Network {
  /** Of the documented addresses 10.0.0.x, those of this run. */
  addressed(text: string): string;
  readonly machines: readonly Machine[];
  /** Nothing reaches the machine and nothing leaves it, and neither side notices at once. */
  blackHole(machine: Machine, isOn: boolean): void;
  /**
   * The machine cannot reach the other machines, and gets an error at once. The test still reaches it.
   */
  cut(machine: Machine, isOn: boolean): void;
}

const DOCUMENTED = /\b10\.0\.0\.(?=\d)/g;
/** For measurements between networks (RFC 2544): in use nowhere. */
const RANGE = '198.18';
const COMMAND_TIMEOUT_MS = 10_000;

function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', timeout: COMMAND_TIMEOUT_MS, stdio: 'pipe' });
}

/** @param names of the machines; the addresses end with 11, 12, and so on. */
export async function startNetwork(keeper: ProcessKeeper, names: readonly string[]): Promise<Network> {
  const taken = ip('-o', '-4', 'addr');
  const free = Array.from({ length: 256 }, (_, number) => `${RANGE}.${number}.`).find((one) => !taken.includes(one));
  if (!free) throw new Error(`all networks of ${RANGE}.0.0/16 are in use`);
  const wire = await startMachine(keeper, 'switch', '');
  wire.run('ip', 'link', 'add', 'switch', 'type', 'bridge');
  wire.run('ip', 'link', 'set', 'switch', 'up');
  const plug = (name: string) => {
    wire.run('ip', 'link', 'set', name, 'master', 'switch');
    wire.run('ip', 'link', 'set', name, 'up');
  };
  // The end here goes with the end in the switch.
  const ours = `hlb-ha-${process.pid}`.slice(0, 15);
  ip('link', 'add', ours, 'type', 'veth', 'peer', 'name', 'test', 'netns', String(wire.init));
  ip('addr', 'add', `${free}1/24`, 'dev', ours);
  ip('link', 'set', ours, 'up');
  plug('test');
  const machines = await Promise.all(names.map((name, number) => startMachine(keeper, name, `${free}${11 + number}`)));
  for (const { name, address, init, run } of machines) {
    ip('link', 'add', `${ours.slice(0, 14)}x`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(init));
    ip('link', 'set', `${ours.slice(0, 14)}x`, 'netns', String(wire.init), 'name', name);
    plug(name);
    run('ip', 'addr', 'add', `${address}/24`, 'dev', 'eth0');
    run('ip', 'link', 'set', 'eth0', 'up');
    run('ip', 'link', 'set', 'lo', 'up');
  }
  return {
    addressed: (text) => text.replaceAll(DOCUMENTED, free),
    machines,
    blackHole: ({ name }, isOn) => void wire.run('ip', 'link', 'set', name, isOn ? 'down' : 'up'),
    cut(machine, isOn) {
      for (const { address } of machines.filter((one) => one !== machine))
        machine.run('ip', 'route', isOn ? 'add' : 'del', 'unreachable', `${address}/32`);
    },
  };
}
