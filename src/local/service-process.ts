// The API or the worker as a process of its own: restarted when it crashes, given up when it keeps crashing, stopped
// in order. It is in a session of its own, so that Ctrl-C reaches it only through us.
import { type ChildProcess, spawn } from 'node:child_process';
import { SERVICE_NODE_OPTIONS } from '../shared/node-options.mjs';
import { openLog } from './log-file.ts';
import { type KnownProcess, knownProcess, signal, waitForExit } from './process-end.ts';
import { SetupProblem } from './setup-problem.ts';

const READY_TIMEOUT_MS = 30_000;
// Above the 25 s after which a service gives up its own graceful stop.
const STOP_TIMEOUT_MS = 28_000;
const KILL_TIMEOUT_MS = 5_000;
const RESTART_DELAY_MIN_MS = 250;
const RESTART_DELAY_MAX_MS = 8_000;
// A service that lived this long before it crashed starts over with its count of crashes.
const STABLE_AFTER_MS = 60_000;
const CRASHES_IN_A_ROW_MAX = 6;
const TAIL_LINES = 12;

export interface ServiceOptions {
  name: string;
  script: string;
  env: NodeJS.ProcessEnv;
  logFile: string;
  say: (line: string) => void;
  /** Told about the first start and every restart. */
  onStart: (process: KnownProcess) => void;
  /** It keeps crashing; the problem says how it ended. */
  onGivenUp: (problem: unknown) => void;
}

export interface Service {
  /** Graceful; kills after a bounded time, or at once when told to hurry. Harmless when called again. */
  stop: (hurry: AbortSignal) => Promise<void>;
}

interface Life {
  child: ChildProcess;
  known: KnownProcess;
  /** What it has logged so far. */
  logged: () => string;
  /** Resolves with how it ended. */
  ended: Promise<string>;
}

/** Returns when the service says that it is ready. Throws SetupProblem with the end of its log when it does not. */
export async function startService(options: ServiceOptions): Promise<Service> {
  let isStopping = false;
  let wake: () => void = () => undefined;
  const stopped = new Promise<void>((resolve) => {
    wake = resolve;
  });
  let life = await launch(options);

  const supervise = async () => {
    let crashes = 0;
    for (;;) {
      const startedAt = performance.now();
      let how = await life.ended;
      let logged = life.logged();
      if (isStopping) return;
      crashes = performance.now() - startedAt > STABLE_AFTER_MS ? 1 : crashes + 1;
      for (; ; crashes += 1) {
        if (crashes >= CRASHES_IN_A_ROW_MAX) {
          return options.onGivenUp(
            new SetupProblem(describe(options, `ended ${crashes} times in a row (${how})`, logged)),
          );
        }
        options.say(
          `The ${options.name} ended unexpectedly (${how}) and is started again; its log: ${options.logFile}`,
        );
        await Promise.race([wait(Math.min(RESTART_DELAY_MIN_MS * 2 ** crashes, RESTART_DELAY_MAX_MS)), stopped]);
        if (isStopping) return;
        try {
          life = await launch(options);
          if (isStopping) signal(life.known, 'SIGTERM');
          break;
        } catch (error) {
          if (isStopping) return;
          if (!(error instanceof StartFailure)) throw error;
          how = error.how;
          logged = error.logged;
        }
      }
      options.say(`The ${options.name} is back`);
    }
  };
  const supervising = supervise().catch(options.onGivenUp);

  return {
    stop: async (hurry) => {
      isStopping = true;
      wake();
      await end(life, hurry);
      await supervising;
    },
  };
}

async function launch(options: ServiceOptions): Promise<Life> {
  const log = openLog(options.logFile);
  const child = spawn(process.execPath, [...SERVICE_NODE_OPTIONS, options.script], {
    env: options.env,
    stdio: ['ignore', log.fd, log.fd, 'ipc'],
    detached: true,
  });
  log.close(); // the child has its own
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, killedBy) => resolve(killedBy ?? `exit code ${code}`));
  });
  child.on('error', () => undefined);
  const known = child.pid === undefined ? undefined : knownProcess(child.pid);
  if (!known) throw new StartFailure(options, await ended, log.written());
  options.onStart(known);
  const ready = new Promise<'ready'>((resolve) => {
    child.on('message', (message) => message === 'ready' && resolve('ready'));
  });
  const timeout = new AbortController();
  const result = await Promise.race([ready, ended, wait(READY_TIMEOUT_MS, timeout.signal)]);
  timeout.abort();
  if (result === 'ready') return { child, known, logged: log.written, ended };
  signal(known, 'SIGKILL');
  const how = result ?? `not ready after ${READY_TIMEOUT_MS / 1000} s`;
  throw new StartFailure(options, how, log.written());
}

async function end({ known }: Life, hurry: AbortSignal): Promise<void> {
  signal(known, 'SIGTERM');
  const impatience = new Promise<false>((resolve) => {
    if (hurry.aborted) resolve(false);
    hurry.addEventListener('abort', () => resolve(false), { once: true });
  });
  if (await Promise.race([waitForExit(known, STOP_TIMEOUT_MS), impatience])) return;
  // Safe at any instant: what was answered is committed, what was not published waits in the outbox.
  signal(known, 'SIGKILL');
  await waitForExit(known, KILL_TIMEOUT_MS);
}

class StartFailure extends SetupProblem {
  readonly how: string;
  readonly logged: string;

  constructor(options: ServiceOptions, how: string, logged: string) {
    super(describe(options, `did not start (${how})`, logged));
    this.how = how;
    this.logged = logged;
  }
}

function describe({ name, logFile }: ServiceOptions, what: string, logged: string): string {
  const tail = logged.trimEnd().split('\n').slice(-TAIL_LINES);
  return [`The ${name} ${what}. The end of ${logFile}:`, ...tail].join('\n  ');
}

function wait(ms: number, cancel?: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(undefined), ms);
    cancel?.addEventListener('abort', () => clearTimeout(timer), { once: true });
  });
}
