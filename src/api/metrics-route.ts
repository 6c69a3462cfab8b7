// GET /metrics, in the text format of Prometheus.
import type { RequestHandler } from 'express';

export interface MetricsOptions {
  readMetrics(): Promise<{ contentType: string; text: string }>;
  /** @param route the path as it is declared, `none` where no path matched. */
  onRequestEnd(method: string | undefined, route: string, status: number, seconds: number): void;
}

export function metricsRoute({ readMetrics }: MetricsOptions): RequestHandler {
  return async (_request, response) => {
    const { contentType, text } = await readMetrics();
    response.setHeader('content-type', contentType);
    response.end(text);
  };
}
