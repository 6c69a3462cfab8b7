// Runs one process from start to a graceful stop. SIGTERM, SIGINT and the death of a parent that
// started it over IPC stop it once; whatever does not stop in time is abandoned, because every part
// is safe to kill at any instant.
import { SettingsError } from './config.ts';
import type { Logger } from './logging.ts';
import { within } from './within.ts';

const STOP_TIMEOUT_MS = 25_000; // below the 30 s that Kubernetes grants

export interface Running {
  /** Finishes the work in flight and releases everything. Idempotent. */
  stop(): Promise<void>;
}

/**
 * Starts the process and keeps it until it is asked to stop. Exits 0 after a graceful stop, 1 after
 * anything else. Invalid settings are printed as sentences, without a stack.
 */
export async function runProcess(start: () => Promise<{ log: Logger; running: Running }>): Promise<void> {
  let started: Awaited<ReturnType<typeof start>>;
  try {
    started = await start();
  } catch (error) {
    process.stderr.write(`${error instanceof SettingsError ? error.message : describe(error)}\n`);
    process.exit(1);
  }
  const { log, running } = started;

  let stopping = false;
  const stop = async (reason: string, exitCode: number) => {
    if (stopping) return;
    stopping = true;
    log.info({ reason }, 'stopping');
    const finished = running.stop().then(
      () => 'finished' as const,
      (error: unknown) => {
        log.error({ err: error }, 'stop failed');
        return 'failed' as const;
      },
    );
    const result = await within(STOP_TIMEOUT_MS, finished, () => 'timed out' as const);
    log.info({ result }, 'stopped');
    process.exit(result === 'finished' ? exitCode : 1);
  };

  process.on('SIGTERM', () => void stop('SIGTERM', 0));
  process.on('SIGINT', () => void stop('SIGINT', 0));
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'uncaught exception');
    void stop('uncaught exception', 1);
  });
  process.on('unhandledRejection', (error) => {
    log.fatal({ err: error }, 'unhandled rejection');
    void stop('unhandled rejection', 1);
  });
  if (process.channel) {
    process.on('disconnect', () => void stop('parent gone', 0));
    process.channel.unref();
    process.send?.('ready');
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
