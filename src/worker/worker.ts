// The parts of the worker put together: the consumer of the ledger queue, the hash chains and, when asked for, its health.
import type { WorkerSettings } from '../shared/config.ts';
import { createPool } from '../shared/database.ts';
import type { Running } from '../shared/lifecycle.ts';
import type { Logger } from '../shared/logging.ts';
import { topologyOf } from '../shared/topology.ts';
import { startTracing } from '../shared/tracing.ts';
import { type Chainer, startChainer } from './chainer.ts';
import { type Consumer, startConsumer } from './consumer.ts';
import { startHealthServer } from './health.ts';
import { createWorkerMetrics } from './metrics.ts';

/** Connects to PostgreSQL and RabbitMQ as they become available. @throws the listen error when healthPort is taken. */
export async function startWorker(
  settings: WorkerSettings,
  log: Logger,
): Promise<Running & { consumer: Consumer; chainer: Chainer; healthPort: number | undefined }> {
  const tracing = await startTracing(settings, 'worker', log);
  const warn = (sentence: string) => log.warn(sentence);
  const pool = createPool(settings.databaseUrl, 'worker', 3, settings.statementTimeoutMs, warn); // ledger, chains, health
  const chainer = startChainer({ pool, log });
  const topology = topologyOf(settings.amqpNamespace);
  const metrics = createWorkerMetrics();
  const consumer = startConsumer({
    ...{ ...settings, topology, pool, log, tracing },
    ...{ onRecorded: chainer.tell, onBatch: metrics.batchEnded },
  });
  metrics.watch({ consumer, chainer, pool });

  async function stopRest(): Promise<void> {
    await consumer.stop();
    await chainer.stop(); // chains what the consumer recorded last
    await pool.end();
    await tracing?.stop();
  }
  const health =
    settings.healthPort === undefined
      ? undefined
      : await startHealthServer({
          host: settings.healthHost,
          port: settings.healthPort,
          consumer,
          chainer,
          pool,
          metrics,
        }).catch(async (error: unknown) => {
          await stopRest();
          throw error;
        });
  log.info({ healthPort: health?.port }, 'worker started');
  let stopping: Promise<void> | undefined;
  return {
    consumer,
    chainer,
    healthPort: health?.port,
    stop() {
      stopping ??= Promise.resolve(health?.stop()).then(stopRest);
      return stopping;
    },
  };
}
