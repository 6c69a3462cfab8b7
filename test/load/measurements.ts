// From one line a request to the numbers that a reader wants: percentiles, counts, and both over
// time.

/**
 * One request: when it was due (Unix time), how long until the whole answer was there, a status
 * code or an error.
 */
export interface SentRequest {
  startedAtMs: number;
  latencyMs: number;
  outcome: string;
}

export interface Recording {
  requests: SentRequest[];
  /**
   * Longest time that the load generator itself stood still: latencies up to that may be its own.
   */
  generatorPauseMs: number;
}

export interface Latency {
  meanMs: number;
  p50Ms: number;
  p95Ms: number;
  p99Ms: number;
  maxMs: number;
}

/**
 * A stretch of the run. Latencies are of the requests that were due in it, outcomes of those that
 * were answered in it.
 */
export interface Slice {
  fromS: number;
  latency: Latency | undefined;
  /** How many a second, by status code or error. */
  outcomesPerSecond: Record<string, number>;
}

/** What recorder.mts wrote, in the order of sending. */
export function parseRecording(text: string): Recording {
  const requests: SentRequest[] = [];
  let generatorPauseMs = 0;
  for (const line of text.split('\n')) {
    const [startedAtMs, latencyMs, outcome] = line.split(',');
    if (outcome === undefined) continue;
    if (outcome === 'generator_pause') generatorPauseMs = Math.max(generatorPauseMs, Number(latencyMs));
    else requests.push({ startedAtMs: Number(startedAtMs), latencyMs: Number(latencyMs), outcome });
  }
  requests.sort((one, other) => one.startedAtMs - other.startedAtMs);
  return { requests, generatorPauseMs };
}

/**
 * Undefined when nothing was sent. Percentiles by nearest rank: each is a value that was measured.
 */
export function latencyOf(requests: readonly SentRequest[]): Latency | undefined {
  if (requests.length === 0) return undefined;
  const sorted = Float64Array.from(requests, (request) => request.latencyMs).sort();
  const percentile = (share: number) => sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] as number;
  return {
    meanMs: sorted.reduce((sum, value) => sum + value, 0) / sorted.length,
    p50Ms: percentile(0.5),
    p95Ms: percentile(0.95),
    p99Ms: percentile(0.99),
    maxMs: percentile(1),
  };
}

export function countOutcomes(requests: readonly SentRequest[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { outcome } of requests) counts[outcome] = (counts[outcome] ?? 0) + 1;
  return counts;
}

/** Requests a second, from the first one due to the last one due. */
export function rateOf(requests: readonly SentRequest[]): number {
  const first = requests[0];
  const last = requests.at(-1);
  if (!first || !last || last.startedAtMs === first.startedAtMs) return 0;
  return ((requests.length - 1) * 1000) / (last.startedAtMs - first.startedAtMs);
}

/** The run cut into stretches of the same length. */
export function slicesOf(requests: readonly SentRequest[], sliceMs: number): Slice[] {
  const first = requests[0];
  if (!first) return [];
  const sliceAt = (timeMs: number) => Math.floor((timeMs - first.startedAtMs) / sliceMs);
  const due = Map.groupBy(requests, (request) => sliceAt(request.startedAtMs));
  const answered = Map.groupBy(requests, (request) => sliceAt(request.startedAtMs + request.latencyMs));
  return Array.from({ length: Math.max(...due.keys(), ...answered.keys()) + 1 }, (_, index) => ({
    fromS: (index * sliceMs) / 1000,
    latency: latencyOf(due.get(index) ?? []),
    outcomesPerSecond: Object.fromEntries(
      Object.entries(countOutcomes(answered.get(index) ?? [])).map(([outcome, count]) => [
        outcome,
        (count * 1000) / sliceMs,
      ]),
    ),
  }));
}
