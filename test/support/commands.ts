// Processes that a test starts beside the API and the worker: what they print so far, how they end,
// and a limit for both. At clean-up none of them runs any more.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { INHERITED, onCleanUp } from './harness.ts';
import { endsWithUs } from './reaper.ts';

const SRC = fileURLToPath(new URL('../../src/', import.meta.url));
/** Under the limit of a test, so that its failure names the command and shows what it printed. */
const TIME_LIMIT_MS = 150_000;
const OUTPUT_CHARACTERS_MAX = 20_000_000;

export interface Output {
  out: string;
  err: string;
}

export interface Ended extends Output {
  /** null: a signal ended it. */
  code: number | null;
}

export interface Run {
  child: ChildProcessWithoutNullStreams;
  /** So far. */
  output: Output;
  /** Rejects for a process that is killed because it takes too long or prints too much. */
  whenEnded: Promise<Ended>;
}

type Environment = Readonly<Record<string, string>>;

/**
 * A command as it is called: `['keys', 'list']`. The file of the command runs, without
 * highload-balance.mjs before it.
 */
export function startCommand([name, ...args]: readonly string[], environment: Environment): Run {
  return startScript(`cli/${name}.ts`, args, environment);
}

export function runCommand(args: readonly string[], environment: Environment): Promise<Ended> {
  return startCommand(args, environment).whenEnded;
}

/** @param file below src. @param src of another release; by default that of this clone. */
export function startScript(file: string, args: readonly string[], environment: Environment, src: string = SRC): Run {
  const env = { ...INHERITED, ...environment };
  return follow(spawn(process.execPath, [path.join(src, file), ...args], { env }));
}

/** Collects the output of a process, and ends it after `limitMs`, and at clean-up at the latest. */
export function follow(child: ChildProcessWithoutNullStreams, limitMs: number = TIME_LIMIT_MS): Run {
  endsWithUs(child);
  const output: Output = { out: '', err: '' };
  const end = () => {
    child.kill('SIGKILL');
    // What it has started may hold its pipes for longer.
    child.stdout.destroy();
    child.stderr.destroy();
  };
  let failure: string | undefined;
  const giveUp = (why: string) => {
    failure ??= why;
    end();
  };
  const collect = (key: keyof Output) => (text: string) => {
    output[key] += text;
    if (output[key].length > OUTPUT_CHARACTERS_MAX) giveUp(`printed over ${OUTPUT_CHARACTERS_MAX} characters`);
  };
  child.stdout.setEncoding('utf8').on('data', collect('out'));
  child.stderr.setEncoding('utf8').on('data', collect('err'));
  const limit = setTimeout(() => giveUp(`had not ended after ${limitMs} ms`), limitMs);
  const whenOver = async (): Promise<Ended> => {
    const [code] = await once(child, 'close');
    clearTimeout(limit);
    if (failure === undefined) return { code, ...output };
    const said = (output.out + output.err).slice(-2000);
    throw new Error(`${child.spawnargs.join(' ')} ${failure}. It printed last:\n${said}`);
  };
  const whenEnded = whenOver();
  const isOver = whenEnded.catch(() => {}); // a test that does not wait for it does not care how it ends
  onCleanUp(() => {
    end();
    return isOver;
  });
  return { child, output, whenEnded };
}
