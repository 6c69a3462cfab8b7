// The parts of the worker put together: the consumer of the ledger queue, the hash chains and, when asked for, its health.
import type { WorkerSettings } from '../shared/config.ts';
import { createPool } from '../shared/database.ts';
import type { Running } from '../shared/lifecycle.ts';
import type { Logger } from '../shared/logging.ts';
import { topologyOf } from '../shared/topology.ts';
import { startTracing } from '../shared/tracing.ts';
import { type Chainer, startChainer } from './chainer.ts';
import { type Consumer, startConsumer } from './consumer.ts';
import { HEALTH_STATEMENT_MS_MAX, startHealthServer } from './health.ts';
import { createWorkerMetrics } from './metrics.ts';

/** Connects to PostgreSQL and RabbitMQ as they become available. @throws the listen error when healthPort is taken. */
export async function startWorker(
  settings: WorkerSettings,
  log: Logger,
): Promise<Running & { consumer: Consumer; chainer: Chainer; healthPort: number | undefined }> {
  const tracing = await startTracing(settings, 'worker', log);
  const warn = (sentence: string) => log.warn(sentence);
  const pool = createPool(settings.databaseUrl, 'worker', 2, settings.statementTimeoutMs, warn); // ledger, chains
  /** A separate pool: health checks never delay the ledger. */
  const healthPool = createPool(settings.databaseUrl, 'worker health', 1, HEALTH_STATEMENT_MS_MAX);
  const chainer = startChainer({ pool, log });
  const topology = topologyOf(settings.amqpNamespace);
  const metrics = createWorkerMetrics();
  const consumer = startConsumer({
    amqpUrl: settings.amqpUrl,
    prefetch: settings.prefetch,
    batchRowsMax: settings.batchRowsMax,
    topology,
    pool,
    log,
    tracing,
    onRecorded: chainer.tell,
    onBatch: metrics.batchEnded,
  });
  metrics.watch({ consumer, chainer, pool });

  async function stopRest(): Promise<void> {
    await consumer.stop();
    await chainer.stop(); // chains what the consumer recorded last
    await Promise.all([pool.end(), healthPool.end()]);
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
          healthPool,
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
