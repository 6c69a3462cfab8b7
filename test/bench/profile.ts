// Where the API's CPU goes: the functions with the most time of their own in the profiles that V8 wrote.
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

const FUNCTIONS_MAX = 30;

interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[];
  samples: number[];
  timeDeltas: number[];
}

/** Prints a line for each of the first ones: share of the time that was not idle, milliseconds, name and place. */
export function printProfile(folder: string): void {
  const selfMs = new Map<string, number>();
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.cpuprofile'))) {
    const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(path.join(folder, file), 'utf8')) as CpuProfile;
    const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
    samples.forEach((id, index) => {
      const name = names.get(id) as string;
      selfMs.set(name, (selfMs.get(name) ?? 0) + (timeDeltas[index] as number) / 1000);
    });
  }
  selfMs.delete('(idle)');
  const total = [...selfMs.values()].reduce((sum, ms) => sum + ms, 0);
  console.log(`${Math.round(total)} ms busy`);
  for (const [name, ms] of [...selfMs].sort((a, b) => b[1] - a[1]).slice(0, FUNCTIONS_MAX)) {
    console.log(
      `${((100 * ms) / total).toFixed(1).padStart(5)} %  ${Math.round(ms).toString().padStart(6)} ms  ${name}`,
    );
  }
}

function nameOf({ functionName, url, lineNumber }: CpuProfile['nodes'][number]['callFrame']): string {
  const place = url.replace(/^.*?\/(node_modules|src|test)\//, '$1/');
  return `${functionName || '(anonymous)'}${place ? ` ${place}:${lineNumber + 1}` : ''}`;
}
