// Metrics in the Prometheus format. Values that a part already counts are read on each scrape; only
// distributions (durations, sizes) are observed as they happen.
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { inTime } from './in-time.ts';

export { Histogram } from 'prom-client';
export type { Registry };

/** A reading: one number, or one for each value of the label. Undefined: currently unknown. */
type Reading = number | Record<string, number> | undefined;

interface Described {
  name: string;
  help: string;
  /**
   * The label of a reading with several numbers. Several labels are separated by spaces, and so are
   * their values.
   */
  label?: string;
  /** How readings of several processes become one. */
  aggregator?: 'sum' | 'max';
}

/**
 * Gauges of prom-client that are named like counters, which `promtool check metrics` refuses. Each
 * is the sum of another over its label `type`: nodejs_active_resources, and so on.
 */
const MISNAMED = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];

/** A registry with the metrics of Node.js itself: memory, CPU, event-loop lag, garbage collection. */
export function createRegistry(): Registry {
  const register = new Registry();
  collectDefaultMetrics({ register });
  for (const name of MISNAMED) register.removeSingleMetric(name);
  return register;
}

/** Upper bounds for durations from a statement to a time-out, in seconds. */
export const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
/** Upper bounds for the sizes of batches. */
export const BATCH_SIZES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];

/** A counter that is kept elsewhere, since the start of the process. */
export function addCounter(register: Registry, described: Described, read: () => Reading): void {
  const { name, help, label, aggregator = 'sum' } = described;
  new Counter({
    ...{ name, help, aggregator, registers: [register], labelNames: label?.split(' ') ?? [] },
    collect() {
      this.reset();
      set(read(), label, (labels, value) => this.inc(labels, value));
    },
  });
}

/** A scrape has little time: a database that hangs must not delay metrics that do not need it. */
const READING_MS_MAX = 1500;

/** A gauge that is read on each scrape, and left out if the reading fails or takes too long. */
export function addGauge(register: Registry, described: Described, read: () => Reading | Promise<Reading>): void {
  const { name, help, label, aggregator = 'sum' } = described;
  const readInTime = inTime(async () => read(), READING_MS_MAX);
  new Gauge({
    ...{ name, help, aggregator, registers: [register], labelNames: label?.split(' ') ?? [] },
    async collect() {
      const reading = await readInTime();
      this.reset();
      if (reading === undefined && label === undefined) this.remove(); // with a label nothing is left by then
      set(reading, label, (labels, value) => this.set(labels, value));
    },
  });
}

function set(reading: Reading, label: string | undefined, write: (labels: object, value: number) => void): void {
  if (typeof reading === 'number') {
    write({}, reading);
    return;
  }
  const labels = label?.split(' ') ?? [];
  for (const [key, value] of Object.entries(reading ?? {})) {
    const values = key.split(' ');
    write(Object.fromEntries(labels.map((name, index) => [name, values[index]])), value);
  }
}
