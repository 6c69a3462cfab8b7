// A shell in which commands are pasted, one block after the other: variables and functions last.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';

const MARK = 'the-block-is-over';
const BLOCK_MS_MAX = 240_000;

export interface Shell {
  /** Runs a block, and returns what it printed to both outputs. @throws at the first command that fails. */
  paste(commands: string): Promise<string>;
  /** Ends it, and what it is running. */
  end(): Promise<void>;
}

export interface ShellOptions {
  cwd: string;
  env: Record<string, string | undefined>;
  uid?: number | undefined;
  gid?: number | undefined;
}

export function startShell({ cwd, env, uid, gid }: ShellOptions): Shell {
  const account = uid !== undefined && gid !== undefined ? { uid, gid } : {};
  const child: ChildProcessWithoutNullStreams = spawn('bash', ['--noprofile', '--norc'], {
    ...{ cwd, env, detached: true },
    ...account,
  });
  const ended = once(child, 'close');
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  child.stdin.on('error', () => {}); // it has ended, which is reported below
  child.stdin.write('exec 2>&1\nset -euo pipefail\n');

  const endProcesses = () => {
    try {
      process.kill(-(child.pid as number), 'SIGKILL');
    } catch {} // all of them have ended
  };
  return {
    async paste(commands) {
      output = '';
      child.stdin.write(`${commands}\necho ${MARK}\n`);
      const deadline = performance.now() + BLOCK_MS_MAX;
      while (!output.endsWith(`${MARK}\n`)) {
        const why =
          child.exitCode !== null
            ? `failed with exit code ${child.exitCode}`
            : performance.now() > deadline
              ? `had not ended after ${BLOCK_MS_MAX} ms`
              : undefined;
        if (why) throw new Error(`These commands of docs/restore.md ${why}:\n${commands}\nThey printed:\n${output}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      return output.slice(0, -MARK.length - 1);
    },
    async end() {
      endProcesses();
      await ended;
    },
  };
}
