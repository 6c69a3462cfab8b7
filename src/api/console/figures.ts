// What the console shows, made of what /metrics says: rates and quantiles of the time between two
// readings.

/**
 * Values by name with labels, as they are in the text:
 * `relay_events_total{track="ledger",outcome="confirmed"}`.
 */
export type Reading = ReadonlyMap<string, number>;

/** Of the Prometheus text format. */
export function parseReading(text: string): Reading {
  const values = new Map<string, number>();
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const space = line.lastIndexOf(' ');
    values.set(line.slice(0, space), Number(line.slice(space + 1)));
  }
  return values;
}

/** Rates are per second, times in milliseconds; null: not known. */
export interface Figures {
  accepted: number;
  /** Answered, and nothing changed: no funds, no account, frozen, nothing left of a hold. */
  declined: number;
  /** 503: overloaded, unavailable, outcome unknown. */
  refused: number;
  replayed: number;
  /** Of single updates, transfers and what is done to holds; null while there are none. */
  p50Ms: number | null;
  p99Ms: number | null;
  batchSize: number | null;
  waiting: number;
  /** Changes that the ledger lacks, and the age of the oldest. */
  pending: number | null;
  lagMs: number | null;
  outboxBytes: number | null;
  confirmed: number;
  /**
   * Relays that this process, or its cluster, holds active: 0 where it is another process's turn.
   */
  relays: number;
  inFlight: number;
  /** Of the relay's link; null in a process that does not relay. */
  link: 'connected' | 'disconnected' | 'blocked' | null;
  eventLoopMs: number | null;
}

/**
 * Whether a counter is lower than before: a process of the cluster was replaced, and what it had
 * counted is gone.
 */
export function beganAnew(before: Reading, now: Reading): boolean {
  for (const [key, value] of before) if (COUNTER.test(key) && (now.get(key) ?? 0) < value) return true;
  return false;
}

/** Of those that figures are made of. */
const COUNTER = /^(balance_|http_request|relay_events)\w*_(total|count|bucket)\b/;

const OPERATIONS = /^balance_operations_total\{.*outcome="(\w+)"/;
const REFUSED = ['overloaded', 'unavailable', 'outcome_unknown', 'internal'];
const LINK_STATES = ['connected', 'blocked', 'disconnected'] as const;

export function figuresBetween(before: Reading, now: Reading, seconds: number): Figures {
  const rate = (key: string) => Math.max(0, (now.get(key) ?? 0) - (before.get(key) ?? 0)) / seconds;
  const outcomes = new Map<string, number>();
  for (const key of now.keys()) {
    const outcome = OPERATIONS.exec(key)?.[1];
    if (outcome !== undefined) outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + rate(key));
  }
  const { applied = 0, replayed = 0, ...others } = Object.fromEntries(outcomes);
  const refused = REFUSED.reduce((sum, outcome) => sum + (others[outcome] ?? 0), 0);
  const declined = Object.values(others).reduce((sum, count) => sum + count, 0) - refused;
  const quantiles = quantilesBetween(before, now, [0.5, 0.99]);
  const batches = rate('balance_batch_changes_count');
  const value = (key: string) => now.get(key) ?? null;
  const milliseconds = (key: string) => {
    const seconds = value(key);
    return seconds === null || Number.isNaN(seconds) ? null : seconds * 1000;
  };
  return {
    accepted: applied,
    declined: Math.max(0, declined),
    refused: refused + rate('http_requests_refused_total'),
    replayed,
    p50Ms: quantiles[0] ?? null,
    p99Ms: quantiles[1] ?? null,
    batchSize: batches > 0 ? rate('balance_batch_changes_sum') / batches : null,
    waiting: now.get('balance_changes_waiting') ?? 0,
    pending: value('outbox_pending_changes'),
    lagMs: milliseconds('outbox_oldest_age_seconds'),
    outboxBytes: value('outbox_size_bytes'),
    confirmed: rate('relay_events_total{track="ledger",outcome="confirmed"}'),
    relays: now.get('relay_active') ?? 0,
    inFlight: now.get('relay_in_flight_events{track="ledger"}') ?? 0,
    link: LINK_STATES.find((state) => (now.get(`rabbitmq_link{track="ledger",state="${state}"}`) ?? 0) > 0) ?? null,
    eventLoopMs: milliseconds('nodejs_eventloop_lag_p99_seconds'),
  };
}

const BUCKET =
  /^http_request_duration_seconds_bucket\{(?=.*method="POST")(?=.*route="\/v1\/(balance-updates|transfers|reversals|accounts\/:id\/holds[^"]*)")/;

/** As histogram_quantile does it: linear within a bucket. In milliseconds. */
function quantilesBetween(before: Reading, now: Reading, shares: readonly number[]): (number | null)[] {
  const counts = new Map<number, number>();
  for (const [key, value] of now) {
    if (!BUCKET.test(key)) continue;
    const bound = /le="([^"]+)"/.exec(key)?.[1];
    const upTo = bound === '+Inf' ? Number.POSITIVE_INFINITY : Number(bound);
    counts.set(upTo, (counts.get(upTo) ?? 0) + value - (before.get(key) ?? 0));
  }
  const buckets = [...counts].sort(([one], [other]) => one - other);
  const total = buckets.at(-1)?.[1] ?? 0;
  return shares.map((share) => {
    if (total <= 0) return null;
    const wanted = share * total;
    let [lower, below] = [0, 0];
    for (const [upTo, count] of buckets) {
      if (count >= wanted) {
        if (upTo === Number.POSITIVE_INFINITY) return lower * 1000;
        return (lower + ((upTo - lower) * (wanted - below)) / (count - below)) * 1000;
      }
      [lower, below] = [upTo, count];
    }
    return lower * 1000;
  });
}
