// `npm start`: the whole system on this machine. PostgreSQL, RabbitMQ, schema, API, worker, in this order; stopped in
// the reverse one. Whatever ends it, the next start continues with the same balances.
import { confirmAtTerminal } from './confirm.ts';
import { start } from './local-system.ts';
import { SetupProblem } from './setup-problem.ts';

// A terminal that is gone must not end us before everything is stopped.
process.stdout.on('error', () => undefined);
process.stderr.on('error', () => undefined);

// npm passes on a Ctrl-C that the terminal has sent to us as well: both are one.
const SAME_PRESS_MS = 1_000;
const interrupted = new AbortController();
const hurry = new AbortController();
let interruptedAt: number | undefined;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (interruptedAt === undefined) {
      interruptedAt = performance.now();
      console.log('\nStopping: API, worker, RabbitMQ, PostgreSQL. Nothing that was answered is lost.');
    }
    interrupted.abort();
    if (performance.now() - interruptedAt > SAME_PRESS_MS && !hurry.signal.aborted) {
      console.log('Hurrying: what is under way is cut off, nothing that was answered is lost.');
      hurry.abort();
    }
  });
}

try {
  await start({
    env: process.env,
    say: (line) => console.log(line),
    interrupted: interrupted.signal,
    hurry: hurry.signal,
    confirm: confirmAtTerminal(interrupted.signal),
  });
} catch (error) {
  process.exitCode = 1;
  console.error(`\n${error instanceof SetupProblem ? error.message : `Unexpected: ${describe(error)}`}`);
}
process.exit();

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
