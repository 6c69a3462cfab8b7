// The worker process: events from RabbitMQ into the audit ledger.
import { readWorkerSettings } from '../shared/config.ts';
import { createPool } from '../shared/database.ts';
import { runProcess } from '../shared/lifecycle.ts';
import { createLogger } from '../shared/logging.ts';
import { topologyOf } from '../shared/topology.ts';
import { startConsumer } from './consumer.ts';
import { startHealthServer } from './health.ts';

await runProcess(async () => {
  const settings = readWorkerSettings();
  const log = createLogger('worker', settings.logLevel);
  const pool = createPool(settings.databaseUrl, 'worker', 2, settings.statementTimeoutMs); // one writes, one for health
  const consumer = startConsumer({ ...settings, topology: topologyOf(settings.amqpNamespace), pool, log });
  const health =
    settings.healthPort === undefined
      ? undefined
      : await startHealthServer({ host: settings.healthHost, port: settings.healthPort, consumer, pool });
  log.info({ healthPort: health?.port }, 'worker started');
  return {
    log,
    running: {
      async stop() {
        await health?.stop();
        await consumer.stop();
        await pool.end();
      },
    },
  };
});
