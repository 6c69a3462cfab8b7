// What the worker tells Prometheus, on its health port.
import type { Pool } from '../shared/database.ts';
import { addCounter, addGauge, createRegistry, type Registry } from '../shared/metrics.ts';
import type { Chainer } from './chainer.ts';
import type { Consumer } from './consumer.ts';

export function createWorkerMetrics({
  consumer,
  chainer,
  pool,
}: {
  consumer: Consumer;
  chainer: Chainer;
  pool: Pool;
}): Registry {
  const registry = createRegistry();
  addCounter(
    registry,
    { name: 'ledger_events_total', help: 'Events received, by what became of them.', label: 'outcome' },
    () => {
      const { recorded, duplicates: duplicate, malformed, forged } = consumer.counts;
      return { recorded, duplicate, malformed, forged };
    },
  );
  addCounter(
    registry,
    { name: 'ledger_write_failures_total', help: 'Batches that PostgreSQL did not take; each is tried again.' },
    () => consumer.counts.retries,
  );
  addCounter(
    registry,
    { name: 'ledger_chain_hashes_total', help: 'Hashes of ledger entries written.' },
    () => chainer.counts.written,
  );
  addCounter(
    registry,
    {
      name: 'ledger_chain_failures_total',
      help: 'Attempts to write hashes that PostgreSQL did not take; tried again.',
    },
    () => chainer.counts.retries,
  );
  addGauge(
    registry,
    { name: 'dead_letters', help: 'Messages in the queue of the dead letters.', aggregator: 'max' },
    () => consumer.deadLetters(),
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
  return registry;
}
