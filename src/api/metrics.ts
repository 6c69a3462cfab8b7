// What the API tells Prometheus. docs/operations.md lists it for operators; alerts.yml and the dashboard are built on it.
import cluster from 'node:cluster';
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
import type { HttpServer } from './http/server.ts';
import { answerPrimary } from './metrics-of-all.ts';
import { type OutboxBacklog, readBacklog } from './relay/outbox-backlog.ts';
import type { Relay } from './relay/relay.ts';
import { type BatchObserver, COUNTED_AS } from './updates/lane.ts';
import type { Lanes } from './updates/lanes.ts';
import type { Outcome } from './updates/operation.ts';

/** How long a reading of the backlog serves all gauges that are made of it. */
const BACKLOG_MS = 500;
/** Outcomes that any operation can have; the others show when there is one. */
const USUAL: readonly (Outcome | 'replayed')[] = [
  ...(['applied', 'replayed', 'insufficient_funds', 'balance_out_of_range', 'max_balance_exceeded'] as const),
  ...(['account_not_found', 'account_closed', 'account_frozen', 'idempotency_key_reused'] as const),
  ...(['overloaded', 'unavailable', 'outcome_unknown', 'internal'] as const),
];
/** A counter that appears with its first count has not increased for Prometheus: each is there from the start. */
const NO_OUTCOMES = Object.fromEntries(
  Object.values(COUNTED_AS).flatMap((operation) => USUAL.map((outcome) => [`${operation} ${outcome}`, 0])),
);

export interface ApiMetrics {
  batches: BatchObserver;
  /** @param route the path as it is declared, or `none`. */
  requestEnded(method: string, route: string, status: number, seconds: number): void;
  /** Adds what is read from the parts of the API, once they are there. */
  watch(parts: { lanes: Lanes; relay: Relay | undefined; pool: Pool; healthPool: Pool }): void;
  watchServer(server: Pick<HttpServer, 'refused'>): void;
  registry: Registry;
}

export function createApiMetrics(): ApiMetrics {
  const registry = createRegistry();
  if (cluster.isWorker) answerPrimary(registry);
  const registers = [registry];
  const requests = new Histogram({
    name: 'http_request_duration_seconds',
    help: 'From the head of a request to the end of its answer.',
    ...{ labelNames: ['method', 'route', 'status'] as const, buckets: SECONDS, registers },
  });
  const sizes = new Histogram({
    name: 'balance_batch_changes',
    help: 'Changes of accounts in one SQL statement.',
    ...{ buckets: BATCH_SIZES, registers },
  });
  const waits = new Histogram({
    name: 'balance_batch_wait_seconds',
    help: 'How long the first operation of a batch waited in its queue.',
    ...{ buckets: SECONDS, registers },
  });
  const durations = new Histogram({
    name: 'balance_batch_duration_seconds',
    help: 'From sending a batch to PostgreSQL to its answer, or its failure.',
    ...{ buckets: SECONDS, registers },
  });
  /** Label look-ups are made once for each combination, not for each request. */
  const observers = new Map<string, { observe(seconds: number): void }>();

  return {
    registry,
    batches(changes, waitedMs, tookMs) {
      sizes.observe(changes);
      waits.observe(waitedMs / 1000);
      durations.observe(tookMs / 1000);
    },
    requestEnded(method, route, status, seconds) {
      const key = `${method} ${route} ${status}`;
      const observer = observers.get(key) ?? requests.labels({ method, route, status: String(status) });
      observers.set(key, observer);
      observer.observe(seconds);
    },
    watchServer(server) {
      addCounter(
        registry,
        { name: 'http_requests_refused_total', help: 'Requests answered 503 overloaded before they were read.' },
        () => server.refused(),
      );
    },
    watch({ lanes, relay, pool, healthPool }) {
      addCounter(
        registry,
        {
          name: 'balance_operations_total',
          help: 'Operations answered: updates, transfers, holds.',
          label: 'operation outcome',
        },
        () => ({ ...NO_OUTCOMES, ...lanes.outcomes() }),
      );
      addGauge(
        registry,
        { name: 'balance_changes_waiting', help: 'Changes of accounts in the queues of the lanes.' },
        () => lanes.counts().waiting,
      );
      addGauge(
        registry,
        { name: 'postgres_pool_connections', help: 'Connections for everything but updates.', label: 'state' },
        () => ({ idle: pool.idleCount, busy: pool.totalCount - pool.idleCount, waited_for: pool.waitingCount }),
      );
      watchBacklog(registry, healthPool);
      if (relay) watchRelay(registry, relay);
    },
  };
}

/** The same in every process: of several, one counts. */
function watchBacklog(registry: Registry, pool: Pool): void {
  let reading: Promise<OutboxBacklog> | undefined;
  const read = () => {
    if (!reading) {
      reading = readBacklog(pool);
      setTimeout(() => (reading = undefined), BACKLOG_MS).unref();
    }
    return reading;
  };
  const aggregator = 'max';
  addGauge(
    registry,
    { name: 'outbox_pending_changes', help: 'Accepted changes that the ledger does not hold yet.', aggregator },
    async () => (await read()).pendingChanges,
  );
  addGauge(
    registry,
    { name: 'outbox_oldest_age_seconds', help: 'Age of the oldest of them: the lag of the ledger.', aggregator },
    async () => (await read()).oldestAgeMs / 1000,
  );
  addGauge(
    registry,
    { name: 'outbox_size_bytes', help: 'Of the outbox on disk, with its indexes.', aggregator },
    async () => {
      const { rows } = await pool.query(
        `SELECT sum(pg_total_relation_size(relid)) AS bytes FROM pg_partition_tree('outbox')`,
      );
      return Number(rows[0].bytes);
    },
  );
}

function watchRelay(registry: Registry, relay: Relay): void {
  const gauge = (name: string, help: string, read: (state: ReturnType<Relay['state']>) => number) =>
    addGauge(registry, { name, help }, () => read(relay.state()));
  gauge('relay_active', '1 in the process whose relay is the active one: 1 in the whole fleet.', ({ active }) =>
    Number(active),
  );
  gauge('relay_in_flight_events', 'Events published and not yet confirmed.', ({ inFlight }) => inFlight);
  addGauge(registry, { name: 'rabbitmq_link', help: '1 for the state that the link is in.', label: 'state' }, () => {
    const { broker } = relay.state();
    return Object.fromEntries(
      ['connected', 'disconnected', 'blocked'].map((state) => [state, Number(state === broker)]),
    );
  });
  addCounter(
    registry,
    { name: 'relay_events_total', help: 'Events, by what became of their publish.', label: 'outcome' },
    () => {
      const { confirmed, rejected, abandoned, republished } = relay.state();
      return { confirmed, rejected, abandoned, republished };
    },
  );
}
