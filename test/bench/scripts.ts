// Loads are processes of their own, so that they do not take turns with what measures them.
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { ProcessKeeper } from './processes.ts';

/** Starts a script of the benchmark. The result is what it prints after RESULT, as JSON. */
export type Start = (script: string, ...scriptArgs: string[]) => { result: Promise<unknown>; end(): void };

export function starterOf(keeper: ProcessKeeper): Start {
  return (script, ...scriptArgs) => {
    const child = spawn(process.execPath, [fileURLToPath(new URL(script, import.meta.url)), ...scriptArgs], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    keeper.keep(child);
    const result = new Promise<unknown>((resolve, reject) => {
      let output = '';
      child.stdout.on('data', (bytes) => {
        output += bytes;
        const line = /^RESULT (.*)\n/m.exec(output)?.[1];
        if (line) resolve(JSON.parse(line));
      });
      child.once('error', reject);
      child.once('close', () => reject(new Error(`${script} ended without a result:\n${output}`)));
    });
    return { result, end: () => child.kill('SIGKILL') };
  };
}
