// The Prometheus metrics of the worker, on its health port.
import type { Pool } from '../shared/database.ts';
import {
  addCounter,
  addGauge,
  BATCH_SIZES,
  createRegistry,
  Histogram,
  type Registry,
  SECONDS,
} from '../shared/metrics.ts';
import type { Chainer } from './chainer.ts';
import type { Consumer } from './consumer.ts';

export interface WorkerMetrics {
  registry: Registry;
  /** One statement that writes ledger entries, whether it succeeded or failed. */
  batchEnded(entries: number, tookMs: number): void;
  /** Adds what is read from the parts of the worker, once they are there. */
  watch(parts: { consumer: Consumer; chainer: Chainer; pool: Pool }): void;
}

export function createWorkerMetrics(): WorkerMetrics {
  const registry = createRegistry();
  const sizes = new Histogram({
    name: 'ledger_batch_entries',
    help: 'Entries in one SQL statement.',
    ...{ buckets: BATCH_SIZES, registers: [registry] },
  });
  const durations = new Histogram({
    name: 'ledger_batch_duration_seconds',
    help: 'Time from sending a batch to PostgreSQL to its answer or failure.',
    ...{ buckets: SECONDS, registers: [registry] },
  });
  return {
    registry,
    batchEnded(entries, tookMs) {
      sizes.observe(entries);
      durations.observe(tookMs / 1000);
    },
    watch: (parts) => watch(registry, parts),
  };
}

function watch(
  registry: Registry,
  { consumer, chainer, pool }: { consumer: Consumer; chainer: Chainer; pool: Pool },
): void {
  addCounter(registry, { name: 'ledger_events_total', help: 'Events received, by outcome.', label: 'outcome' }, () => {
    const { recorded, duplicates: duplicate, malformed, superseded, forged } = consumer.counts;
    return { recorded, duplicate, malformed, superseded, forged };
  });
  addCounter(
    registry,
    { name: 'ledger_write_failures_total', help: 'Batches that PostgreSQL refused; each is retried.' },
    () => consumer.counts.retries,
  );
  addCounter(
    registry,
    { name: 'ledger_chain_entries_total', help: 'Ledger entries hashed into the chains.' },
    () => chainer.counts.hashed,
  );
  addCounter(
    registry,
    {
      name: 'ledger_chain_failures_total',
      help: 'Failed attempts to write hashes to PostgreSQL; retried.',
    },
    () => chainer.counts.retries,
  );
  addGauge(registry, { name: 'dead_letters', help: 'Messages in the dead-letter queue.', aggregator: 'max' }, () =>
    consumer.deadLetters(),
  );
  addGauge(registry, { name: 'rabbitmq_link', help: '1 for the state that the link is in.', label: 'state' }, () => ({
    connected: Number(consumer.link.connected),
    disconnected: Number(!consumer.link.connected),
  }));
  addGauge(registry, { name: 'postgres_pool_connections', help: 'Connections to PostgreSQL.', label: 'state' }, () => ({
    idle: pool.idleCount,
    busy: pool.totalCount - pool.idleCount,
    waited_for: pool.waitingCount,
  }));
}
