// /livez, /readyz and /metrics of the worker, for container platforms.
import { createServer } from 'node:http';
import type { Pool } from '../shared/database.ts';
import type { Running } from '../shared/lifecycle.ts';
import type { Chainer } from './chainer.ts';
import type { Consumer } from './consumer.ts';
import type { WorkerMetrics } from './metrics.ts';

/** Ready: linked to RabbitMQ, and PostgreSQL answers. */
export async function startHealthServer(options: {
  host: string;
  port: number;
  consumer: Consumer;
  chainer: Chainer;
  pool: Pool;
  metrics: WorkerMetrics;
}): Promise<Running & { port: number }> {
  const { consumer, chainer, pool } = options;
  const metrics = options.metrics.registry;
  const server = createServer(async (request, response) => {
    const answer = (status: number, body: object) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    if (request.url === '/livez') return answer(200, { status: 'ok' });
    if (request.url === '/metrics') {
      response.writeHead(200, { 'content-type': metrics.contentType }).end(await metrics.metrics());
      return;
    }
    if (request.url !== '/readyz') return answer(404, { status: 'not_found' });
    const database = await pool.query('SELECT 1').then(
      () => 'ok',
      () => 'unavailable',
    );
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
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, resolve);
  });
  const address = server.address();
  return {
    port: typeof address === 'object' && address ? address.port : options.port,
    stop: async () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
