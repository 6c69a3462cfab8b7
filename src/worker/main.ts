// The worker process: events from RabbitMQ into the audit ledger.
import { readWorkerSettings } from '../shared/config.ts';
import { runProcess } from '../shared/lifecycle.ts';
import { createLogger } from '../shared/logging.ts';
import { startWorker } from './worker.ts';

await runProcess(async () => {
  const settings = readWorkerSettings();
  const log = createLogger('worker', settings.logLevel);
  return { log, running: await startWorker(settings, log) };
});
