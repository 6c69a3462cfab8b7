// The Prometheus metrics of the API. docs/observe.md lists them for operators; alerts.yml and the
// dashboard use them.
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
import type { QueryLine } from './calls/query-line.ts';
import type { HttpServer } from './http/server.ts';
import { answerPrimary } from './metrics-of-all.ts';
import { readMissed } from './relay/missed.ts';
import { type OutboxBacklog, readBacklog } from './relay/outbox-backlog.ts';
import type { Relay, RelayState } from './relay/relay.ts';
import type { BatchObserver } from './updates/lane.ts';
import type { Lanes } from './updates/lanes.ts';
import type { LostAnswersWatch } from './updates/lost-answers.ts';
import type { Outcome } from './updates/operation.ts';
import { COUNTED_AS } from './updates/results.ts';

/** How long one reading of the backlog is reused for all its gauges. */
const BACKLOG_MS = 500;
/** Outcomes that any operation can have; the others show when there is one. */
const USUAL: readonly (Outcome | 'replayed')[] = [
  ...(['applied', 'replayed', 'insufficient_funds', 'balance_out_of_range', 'max_balance_exceeded'] as const),
  ...(['account_not_found', 'account_closed', 'account_frozen', 'idempotency_key_reused'] as const),
  ...(['overloaded', 'unavailable', 'outcome_unknown', 'internal'] as const),
];
/**
 * Prometheus sees no increase in a counter that first appears with a count, so each exists from the
 * start.
 */
const NO_OUTCOMES = Object.fromEntries(
  Object.values(COUNTED_AS).flatMap((operation) => USUAL.map((outcome) => [`${operation} ${outcome}`, 0])),
);

export interface ApiMetrics {
  batches: BatchObserver;
  /** @param route the path as it is declared, or `none`. */
  requestEnded(method: string, route: string, status: number, seconds: number): void;
  /** Adds what is read from the parts of the API, once they are there. */
  watch(parts: {
    lanes: Lanes;
    lostAnswers: Pick<LostAnswersWatch, 'lost'>;
    relay: Relay | undefined;
    /** For everything but updates. */
    pools: readonly Pool[];
    /** What waits for them. */
    queryLines: readonly Pick<QueryLine, 'waiting'>[];
    healthPool: Pool;
  }): void;
  watchServer(server: Pick<HttpServer, 'refused'>): void;
  registry: Registry;
}

export function createApiMetrics(): ApiMetrics {
  const registry = createRegistry();
  if (cluster.isWorker) answerPrimary(registry);
  const registers = [registry];
  const requests = new Histogram({
    name: 'http_request_duration_seconds',
    help: 'Time from the head of a request to the end of its answer.',
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
    help: 'Time from sending a batch to PostgreSQL to its answer or failure.',
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
    watch({ lanes, lostAnswers, relay, pools, queryLines, healthPool }) {
      addCounter(
        registry,
        {
          name: 'balance_operations_total',
          help: 'Operations answered: updates, transfers, holds.',
          label: 'operation outcome',
        },
        () => ({ ...NO_OUTCOMES, ...lanes.outcomes() }),
      );
      addCounter(
        registry,
        {
          name: 'balance_lost_answers_total',
          help: 'Accounts whose last answered change was lost by the database.',
        },
        () => lostAnswers.lost(),
      );
      addGauge(
        registry,
        { name: 'balance_changes_waiting', help: 'Changes of accounts in the queues of the lanes.' },
        () => lanes.counts().waiting,
      );
      addGauge(
        registry,
        { name: 'postgres_pool_connections', help: 'Connections for everything but updates.', label: 'state' },
        () => {
          const idle = sumOf(pools, (pool) => pool.idleCount);
          const busy = sumOf(pools, (pool) => pool.totalCount) - idle;
          const waiting = sumOf(queryLines, (line) => line.waiting());
          return { idle, busy, waited_for: waiting + sumOf(pools, (pool) => pool.waitingCount) };
        },
      );
      watchBacklog(registry, healthPool);
      if (relay) watchRelay(registry, relay);
    },
  };
}

function sumOf<T>(all: readonly T[], one: (each: T) => number): number {
  return all.reduce((sum, each) => sum + one(each), 0);
}

/** The same in every process, so they are not added up. */
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
    {
      name: 'outbox_subscribers_oldest_age_seconds',
      help: 'Age of the oldest change that some subscriber may lack.',
      aggregator,
    },
    async () => (await read()).subscribersOldestAgeMs / 1000,
  );
  addGauge(
    registry,
    {
      name: 'subscribers_undelivered',
      help: 'Undelivered gaps of subscribers: queues that were put aside, and ranges passed over for all.',
      label: 'what',
      aggregator,
    },
    () => readMissed(pool),
  );
  addGauge(
    registry,
    { name: 'outbox_size_bytes', help: 'Size of the outbox on disk, including indexes.', aggregator },
    async () => {
      const { rows } = await pool.query(
        `SELECT sum(pg_total_relation_size(relid)) AS bytes FROM pg_partition_tree('outbox')`,
      );
      return Number(rows[0].bytes);
    },
  );
}

function watchRelay(registry: Registry, relay: Relay): void {
  const tracks = ['ledger', 'subscribers'] as const;
  const gauge = (name: string, help: string, read: (state: RelayState) => number) =>
    addGauge(registry, { name, help }, () => read(relay.state()));
  gauge('relay_active', '1 in the process with the active relay: one process in the whole fleet.', ({ active }) =>
    Number(active),
  );
  addGauge(
    registry,
    { name: 'relay_in_flight_events', help: 'Events published and not yet confirmed.', label: 'track' },
    () => Object.fromEntries(tracks.map((track) => [track, relay.state()[track].inFlight])),
  );
  addGauge(
    registry,
    {
      name: 'rabbitmq_link',
      help: '1 for the state that the link of the active relay is in.',
      label: 'track state',
    },
    () => {
      const state = relay.state();
      const links = tracks.flatMap((track) =>
        ['connected', 'disconnected', 'blocked'].map((one) => [`${track} ${one}`, Number(one === state[track].broker)]),
      );
      return Object.fromEntries(links);
    },
  );
  addCounter(
    registry,
    { name: 'relay_events_total', help: 'Events, by outcome of their publish.', label: 'track outcome' },
    () => {
      const state = relay.state();
      const counts = tracks.flatMap((track) => {
        const { confirmed, rejected, unrouted, republished } = state[track];
        return Object.entries({ confirmed, rejected, unrouted, republished }).map(([outcome, events]) => [
          `${track} ${outcome}`,
          events,
        ]);
      });
      return Object.fromEntries([...counts, ['subscribers passed_over', state.subscribers.passedOver]]);
    },
  );
  gauge(
    'subscribers_waiting_seconds',
    'How long subscribers have received no events because a queue accepts none; 0 when healthy.',
    ({ subscribers }) => (subscribers.waiting?.forMs ?? 0) / 1000,
  );
  gauge(
    'outbox_truncation_waiting_seconds',
    'How long transactions have blocked the truncation of the outbox.',
    ({ truncation }) => (truncation?.waitsForMs ?? 0) / 1000,
  );
}
