// `npm start`: the whole system on this machine. PostgreSQL, RabbitMQ, schema, API, worker, in this
// order; stopped in the reverse one. However it ends, the next start continues with the same
// balances.
import { commandLine, refuse } from '../cli/command-line.ts';
import { confirmAtTerminal } from './confirm.ts';
import { start } from './local-system.ts';
import { SetupProblem } from './setup-problem.ts';
import { terminalOutput } from './terminal-output.ts';

const HELP = `usage: highload-balance start [--reset [--yes]]

Runs PostgreSQL, RabbitMQ, the API and the worker on this machine, until Ctrl-C. The next start continues with the same
balances.

--reset   starts over: permanently deletes the data of earlier runs on this machine, after a question
--yes     with --reset: without the question

Settings come from the environment: PORT (3000), HOST (127.0.0.1), DATA_DIR (.data), DATABASE_URL and AMQP_URL for your own
servers, and those of the API and the worker, see docs/run.md.

exit code: 0 stopped in order; 1 it could not run; 2 called incorrectly`;

// npm forwards a Ctrl-C that the terminal has also sent to us: both count as one.
const SAME_PRESS_MS = 1_000;
const OUTPUT_TIMEOUT_MS = 1_000;

const { reset, yes } = commandLine({ reset: { type: 'boolean' }, yes: { type: 'boolean' } }, HELP);
if (yes && !reset) refuse('--yes is only for --reset.');

const output = terminalOutput(1);
const problems = terminalOutput(2);
const interrupted = new AbortController();
const hurry = new AbortController();
let interruptedAt: number | undefined;

function interrupt(): void {
  interruptedAt ??= performance.now();
  interrupted.abort();
  if (performance.now() - interruptedAt > SAME_PRESS_MS && !hurry.signal.aborted) {
    output.say('Hurrying: requests in flight are cut off. Every answered update is kept.');
    hurry.abort();
  }
}

function fail(error: unknown): void {
  process.exitCode = 1;
  problems.say(`\n${error instanceof SetupProblem ? error.message : `Unexpected: ${describe(error)}`}`);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) process.on(signal, interrupt);
// The process that started this one over a channel, and waits for it, was killed.
process.on('disconnect', interrupt);
// A defect: started processes must not be left running.
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    fail(error);
    interrupt();
  });
}

try {
  await start({
    env: reachingThisMachine(process.env),
    say: output.say,
    interrupted: interrupted.signal,
    hurry: hurry.signal,
    confirm: confirmAtTerminal(interrupted.signal, () => output.isWritten(OUTPUT_TIMEOUT_MS)),
    reset: reset ? (yes ? 'agreed' : 'ask') : undefined,
  });
} catch (error) {
  fail(error);
}
const isWritten = await Promise.all([output, problems].map((stream) => stream.isWritten(OUTPUT_TIMEOUT_MS)));
// A normal exit would wait for output that no one reads.
if (isWritten.includes(false)) process.kill(process.pid, 'SIGKILL');
process.exit();

/**
 * With NODE_USE_ENV_PROXY, Node uses the proxy for everything, including servers on this machine.
 * Changes `env`.
 */
function reachingThisMachine(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const without = [env.no_proxy ?? env.NO_PROXY, 'localhost', '127.0.0.1', '::1', '[::1]'].filter(Boolean).join(',');
  env.no_proxy = without;
  env.NO_PROXY = without;
  return env;
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
