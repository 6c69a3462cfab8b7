// The parts of the worker put together: the consumer of the ledger queue and, when asked for, its health.
import type { WorkerSettings } from '../shared/config.ts';
import { createPool } from '../shared/database.ts';
import type { Running } from '../shared/lifecycle.ts';
import type { Logger } from '../shared/logging.ts';
import { topologyOf } from '../shared/topology.ts';
import { type Consumer, startConsumer } from './consumer.ts';
import { startHealthServer } from './health.ts';

/** Connects to PostgreSQL and RabbitMQ as they become available. @throws the listen error when healthPort is taken. */
export async function startWorker(
  settings: WorkerSettings,
  log: Logger,
): Promise<Running & { consumer: Consumer; healthPort: number | undefined }> {
  const pool = createPool(settings.databaseUrl, 'worker', 2, settings.statementTimeoutMs); // one writes, one for health
  const consumer = startConsumer({ ...settings, topology: topologyOf(settings.amqpNamespace), pool, log });

  async function stopConsumer(): Promise<void> {
    await consumer.stop();
    await pool.end();
  }
  const health =
    settings.healthPort === undefined
      ? undefined
      : await startHealthServer({ host: settings.healthHost, port: settings.healthPort, consumer, pool }).catch(
          async (error: unknown) => {
            await stopConsumer();
            throw error;
          },
        );
  log.info({ healthPort: health?.port }, 'worker started');
  let stopping: Promise<void> | undefined;
  return {
    consumer,
    healthPort: health?.port,
    stop() {
      stopping ??= Promise.resolve(health?.stop()).then(stopConsumer);
      return stopping;
    },
  };
}
