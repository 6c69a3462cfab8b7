// CPU time of processes, from /proc: user and system, with their descendants and the ended ones that were waited for.
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

const ticksPerSecond = Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));

interface Stat {
  pid: number;
  parent: number;
  command: string;
  /** Of its own. */
  seconds: number;
  /** Of its ended children and theirs. */
  reapedSeconds: number;
}

function readStat(pid: number): Stat | undefined {
  try {
    const line = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command is in brackets and may hold brackets and blanks itself; the fields behind it are numbers.
    const end = line.lastIndexOf(')');
    const fields = line.slice(end + 2).split(' ');
    const ticks = (index: number) => Number(fields[index]);
    return {
      pid,
      parent: Number(fields[1]),
      command: line.slice(line.indexOf('(') + 1, end),
      seconds: (ticks(11) + ticks(12)) / ticksPerSecond,
      reapedSeconds: (ticks(13) + ticks(14)) / ticksPerSecond,
    };
  } catch {
    return undefined; // it ended meanwhile
  }
}

const allStats = () =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => readStat(Number(name)))
    .filter((stat) => stat !== undefined);

/** Seconds that these processes and all their descendants have used so far. */
export function cpuSeconds(pids: readonly number[]): number {
  const children = Map.groupBy(allStats(), ({ parent }) => parent);
  const count = (stat: Stat): number =>
    (children.get(stat.pid) ?? []).reduce((sum, child) => sum + count(child), stat.seconds + stat.reapedSeconds);
  return pids.reduce((sum, pid) => {
    const stat = readStat(pid);
    return sum + (stat ? count(stat) : 0);
  }, 0);
}

/** Seconds used by children of this process that have ended: what a load generator took. */
export function endedChildrenSeconds(): number {
  return readStat(process.pid)?.reapedSeconds ?? 0;
}

/** Seconds that all cores together were busy so far, whoever with; time that a hypervisor gave to others included. */
export function machineBusySeconds(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = readFileSync('/proc/stat', 'utf8')
    .split('\n', 1)[0]!
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq + steal) / ticksPerSecond;
}

/** For a broker that we did not start ourselves. */
export function processesNamed(command: string): number[] {
  return allStats()
    .filter((stat) => stat.command === command)
    .map(({ pid }) => pid);
}

/** Resident memory in bytes, or undefined when the process is gone. */
export function residentBytes(pid: number): number | undefined {
  try {
    const kilobytes = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
  } catch {
    return undefined;
  }
}
