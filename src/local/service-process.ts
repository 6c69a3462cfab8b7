// The API or the worker as a child process: restarted when it crashes, given up when it keeps
// crashing, stopped in order. It runs in its own session, so that Ctrl-C reaches it only through
// us.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { backOffMs } from '../shared/back-off.ts';
import { SERVICE_NODE_OPTIONS } from '../shared/node-options.mjs';
import type { KnownProcess } from '../shared/runtime.ts';
import { within } from '../shared/within.ts';
import { openLog } from './log-file.ts';
import { knownProcess, signal, waitForExit } from './process-end.ts';
import { SetupProblem } from './setup-problem.ts';

const READY_TIMEOUT_MS = 30_000;
// Above the 25 s after which a service gives up its own graceful stop.
const STOP_TIMEOUT_MS = 28_000;
const KILL_TIMEOUT_MS = 5_000;
const RESTART_DELAY_MIN_MS = 500;
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
  /** Called on the first start and every restart. */
  onStart: (process: KnownProcess) => void;
  /** It keeps crashing; the problem says how it ended. */
  onGivenUp: (problem: unknown) => void;
}

export interface Service {
  /** Graceful; kills after a bounded time, or at once when asked to hurry. Idempotent. */
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

/**
 * Returns when the service reports that it is ready. Throws SetupProblem with the end of its log
 * when it does not.
 */
export async function startService(options: ServiceOptions): Promise<Service> {
  const stopping = new AbortController();
  const { signal: stopped } = stopping;
  let life = await launch(options);

  const supervise = async () => {
    let crashes = 0;
    for (;;) {
      const startedAt = performance.now();
      let how = await life.ended;
      let logged = life.logged();
      if (stopped.aborted) return;
      crashes = performance.now() - startedAt > STABLE_AFTER_MS ? 1 : crashes + 1;
      for (; ; crashes += 1) {
        if (crashes >= CRASHES_IN_A_ROW_MAX) {
          return options.onGivenUp(
            new SetupProblem(describe(options, `ended ${crashes} times in a row (${how})`, logged)),
          );
        }
        options.say(
          `The ${options.name} ended unexpectedly (${how}) and is being restarted; its log: ${options.logFile}`,
        );
        const pauseMs = backOffMs(crashes, RESTART_DELAY_MIN_MS, RESTART_DELAY_MAX_MS);
        await delay(pauseMs, undefined, { signal: stopped }).catch(() => {});
        if (stopped.aborted) return;
        try {
          life = await launch(options);
          if (stopped.aborted) signal(life.known, 'SIGTERM');
          break;
        } catch (error) {
          if (stopped.aborted) return;
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
      stopping.abort();
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
  const result = await within(READY_TIMEOUT_MS, Promise.race([ready, ended]), () => undefined);
  if (result === 'ready') return { child, known, logged: log.written, ended };
  signal(known, 'SIGKILL');
  const how = result ?? `not ready after ${READY_TIMEOUT_MS / 1000} s`;
  throw new StartFailure(options, how, log.written());
}

async function end({ known }: Life, hurry: AbortSignal): Promise<void> {
  signal(known, 'SIGTERM');
  const impatience = hurry.aborted ? false : once(hurry, 'abort').then(() => false);
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
