// GET /metrics, in the text format of Prometheus.
import type { RequestHandler } from 'express';
import { atMost } from '../shared/at-most.ts';

/**
 * More often than any real scraper reads them; each reading takes a few milliseconds and a few
 * queries.
 */
const READINGS_PER_SECOND = 5;

export interface MetricsOptions {
  readMetrics(): Promise<{ contentType: string; text: string }>;
  /** @param route the path as it is declared, `none` where no path matched. */
  onRequestEnd(method: string | undefined, route: string, status: number, seconds: number): void;
}

export function metricsRoute({ readMetrics }: MetricsOptions): RequestHandler {
  const read = atMost(READINGS_PER_SECOND, readMetrics);
  return async (_request, response) => {
    const { contentType, text } = await read();
    response.setHeader('content-type', contentType);
    response.end(text);
  };
}
