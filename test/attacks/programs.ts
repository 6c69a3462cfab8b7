// The tools are programs of Debian. Each runs with the lowest priority, so that what it measures is
// the service and not the machine, and with a limit of time.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { onCleanUp } from '../support/harness.ts';

export interface Ran {
  output: string;
  /** Ended by itself, in time. */
  isComplete: boolean;
}

const OUTPUT_CHARACTERS_MAX = 50_000_000;

/** @throws unless it is installed. */
export function requireProgram(program: string): void {
  if (spawnSync('which', [program]).status !== 0)
    throw new Error(`${program} is not installed: apt-get install ${program}`);
}

export async function run(program: string, args: readonly string[], folder: string, limitMs: number): Promise<Ran> {
  // A group of its own: sqlmap and wapiti are scripts that start others.
  const child = spawn('nice', ['-n', '15', program, ...args], {
    cwd: folder,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, HOME: folder, TERM: 'dumb', LANG: 'C.UTF-8' },
  });
  const end = () => {
    try {
      process.kill(-(child.pid as number), 'SIGKILL');
    } catch {} // it has ended
  };
  onCleanUp(async () => end());
  let output = '';
  let isComplete = true;
  const giveUp = () => {
    isComplete = false;
    end();
  };
  const collect = (text: string) => {
    output += text;
    if (output.length > OUTPUT_CHARACTERS_MAX) giveUp();
  };
  child.stdout.setEncoding('utf8').on('data', collect);
  child.stderr.setEncoding('utf8').on('data', collect);
  const limit = setTimeout(giveUp, limitMs);
  await once(child, 'close');
  clearTimeout(limit);
  return { output, isComplete };
}
