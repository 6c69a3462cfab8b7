// /livez, /readyz and /metrics of the worker, for container platforms.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { setAnswerHeaders } from '../shared/answer-headers.ts';
import { atMost } from '../shared/at-most.ts';
import type { Pool } from '../shared/database.ts';
import { inTime } from '../shared/in-time.ts';
import type { Running } from '../shared/lifecycle.ts';
import { UnfitServer } from '../shared/session-settings.ts';
import type { Chainer } from './chainer.ts';
import type { Consumer } from './consumer.ts';
import type { WorkerMetrics } from './metrics.ts';
import { checkWritable, ReadOnlyServer } from './writable.ts';

/** Longer than a healthy database takes to answer. */
export const HEALTH_STATEMENT_MS_MAX = 5000;
/** A connection may have to be opened first; a load balancer waits no longer than this. */
const READING_MS_MAX = 5000;
/** Of the database, and of the metrics. */
const READINGS_PER_SECOND = 10;

/** Ready: linked to RabbitMQ, and PostgreSQL accepts writes. */
export async function startHealthServer(options: {
  host: string;
  port: number;
  consumer: Consumer;
  chainer: Chainer;
  healthPool: Pool;
  metrics: WorkerMetrics;
}): Promise<Running & { port: number }> {
  const { consumer, chainer, healthPool } = options;
  const { registry } = options.metrics;
  // One reading at a time and a few in a second, however many clients ask.
  const databaseInTime = atMost(
    READINGS_PER_SECOND,
    inTime(() => databaseState(healthPool), READING_MS_MAX),
  );
  const metricsInTime = atMost(
    READINGS_PER_SECOND,
    inTime(() => registry.metrics(), READING_MS_MAX),
  );
  const server = createServer(async (request, response) => {
    setAnswerHeaders(response);
    const { 'content-length': length, 'transfer-encoding': coding } = request.headers;
    // Nothing here reads a body, and Node would otherwise read one of any length to its end.
    if (length !== undefined || coding !== undefined) response.setHeader('connection', 'close');
    const answer = (status: number, body: object) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    if (request.url === '/livez') return answer(200, { status: 'ok' });
    if (request.url === '/metrics') {
      const text = await metricsInTime();
      if (text === undefined) return answer(503, { status: 'unavailable' });
      response.writeHead(200, { 'content-type': registry.contentType }).end(text);
      return;
    }
    if (request.url !== '/readyz') return answer(404, { status: 'not_found' });
    const database = (await databaseInTime()) ?? 'unavailable';
    const broker = consumer.link.connected ? 'ok' : 'unavailable';
    const ready = database === 'ok' && broker === 'ok';
    return answer(ready ? 200 : 503, {
      status: ready ? 'ok' : 'unavailable',
      database,
      broker,
      counts: consumer.counts,
      chain: chainer.counts,
    });
  });
  server.requestTimeout = 5000;
  server.listen(options.port, options.host);
  await once(server, 'listening');
  const address = server.address();
  return {
    port: typeof address === 'object' && address ? address.port : options.port,
    stop: async () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** 'ok', or in a few words why no entries can be written. */
async function databaseState(pool: Pool): Promise<string> {
  try {
    await checkWritable(pool);
    return 'ok';
  } catch (error) {
    return error instanceof ReadOnlyServer || error instanceof UnfitServer ? error.message : 'unavailable';
  }
}
