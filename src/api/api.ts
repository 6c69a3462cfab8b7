// The parts of the API put together: HTTP, the lanes that apply updates, and the relay (or only the relay).
import { hostname } from 'node:os';
import type { ApiSettings } from '../shared/config.ts';
import { createPool } from '../shared/database.ts';
import type { Running } from '../shared/lifecycle.ts';
import type { Logger } from '../shared/logging.ts';
import { expectedSchemaVersion } from '../shared/migrations.ts';
import { topologyOf } from '../shared/topology.ts';
import { startTracing } from '../shared/tracing.ts';
import { createAccess } from './access/access.ts';
import { createApp, createHealthApp } from './app.ts';
import { createLiveStream } from './console/live-stream.ts';
import { databaseState } from './health-routes.ts';
import { startServer } from './http/server.ts';
import { createApiMetrics } from './metrics.ts';
import { readMetrics } from './metrics-of-all.ts';
import { startRelay } from './relay/relay.ts';
import { startHoldSweep } from './updates/hold-sweep.ts';
import { startKeyExpiry } from './updates/key-expiry.ts';
import { createLanes } from './updates/lanes.ts';

/**
 * Listens, and connects to PostgreSQL and RabbitMQ as they become available: neither has to be there at the start.
 * @throws the listen error when the port is taken.
 */
export async function startApi(settings: ApiSettings, log: Logger): Promise<Running & { port: number }> {
  const tracing = await startTracing(settings, 'api', log);
  const pool = createPool(settings.databaseUrl, 'api', settings.poolMax, settings.statementTimeoutMs);
  const healthPool = createPool(settings.databaseUrl, 'api', 1, settings.statementTimeoutMs);
  const topology = topologyOf(settings.amqpNamespace);
  const relay = settings.relay === 'off' ? undefined : startRelay({ ...settings, topology, log, tracing });
  const metrics = createApiMetrics();
  const lanes = createLanes(settings.lanes, {
    ...{ ...settings, log, tracing },
    ...{ onChange: () => relay?.wake(), onBatch: metrics.batches },
  });
  metrics.watch({ lanes, relay, pool, healthPool });
  const stopKeyExpiry =
    settings.relay === 'only' ? () => {} : startKeyExpiry(pool, settings.idempotencyKeysKeptMs, log);
  const stopHoldSweep = settings.relay === 'only' ? async () => {} : startHoldSweep(pool, () => relay?.wake(), log);
  let stopping: Promise<void> | undefined;
  const health = {
    pool,
    healthPool,
    schemaVersion: await expectedSchemaVersion(),
    relayState: () => relay?.state() ?? { active: false },
    laneCounts: () => lanes.counts(),
    readMetrics: () => readMetrics(metrics.registry),
    onRequestEnd: metrics.requestEnded,
    isStopping: () => stopping !== undefined,
    tracing,
    log,
  };
  const access = settings.relay === 'only' ? undefined : createAccess({ ...settings, log });
  const live = createLiveStream({
    ...{ ...settings, ...health, topology, processes: settings.apiProcesses },
    databaseState: () => databaseState(healthPool, health.schemaVersion),
    isRevoked: async (response) => (await access?.isRevoked(response)) ?? false,
    instance: `${hostname()}, process ${process.pid}`,
  });
  const app = access ? createApp({ ...settings, ...health, topology, lanes, access, live }) : createHealthApp(health);

  async function stopRest(): Promise<void> {
    stopKeyExpiry();
    await Promise.all([access?.stop(), lanes.stop(), stopHoldSweep()]);
    await relay?.stop();
    await Promise.all([pool.end(), healthPool.end()]);
    await tracing?.stop();
  }
  const server = await startServer(app, settings.host, settings.port).catch(async (error: unknown) => {
    await stopRest();
    throw error;
  });
  metrics.watchServer(server);
  log.info({ host: settings.host, port: server.port, relay: settings.relay, auth: settings.auth }, 'api started');
  if (settings.auth === 'off') log.warn('AUTH is off: whoever reaches this address of this machine may do everything');
  return {
    port: server.port,
    stop() {
      // No new requests first; the ones under way are answered.
      stopping ??= Promise.all([live.end(), server.stop()]).then(stopRest);
      return stopping;
    },
  };
}
