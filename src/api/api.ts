// The parts of the API put together: HTTP, the lanes that apply updates, and the relay (or only the relay).
import { hostname } from 'node:os';
import type { Response } from 'express';
import { SCOPES } from '../shared/api-key.ts';
import type { ApiSettings } from '../shared/config.ts';
import { createPool, watchReading } from '../shared/database.ts';
import type { Running } from '../shared/lifecycle.ts';
import type { Logger } from '../shared/logging.ts';
import { expectedSchemaVersion } from '../shared/migrations.ts';
import { topologyOf } from '../shared/topology.ts';
import { startTracing } from '../shared/tracing.ts';
import { createAccess } from './access/access.ts';
import { startAccessLog } from './access/access-log.ts';
import { boundOf, isInside } from './access/account-bound.ts';
import { keyOf } from './access/key-of.ts';
import { createApp, createHealthApp } from './app.ts';
import { createBulkTurns } from './calls/bulk-turns.ts';
import { Pace } from './calls/pace.ts';
import { createQueryLine } from './calls/query-line.ts';
import { type Caller, createLiveStream } from './console/live-stream.ts';
import { databaseState } from './health-routes.ts';
import { startServer } from './http/server.ts';
import { createApiMetrics } from './metrics.ts';
import { readMetrics } from './metrics-of-all.ts';
import { partProblems } from './part-problems.ts';
import { startRelay } from './relay/relay.ts';
import { AnswersMemory } from './updates/answers-memory.ts';
import { DeclineLimit } from './updates/decline-limit.ts';
import { startHoldSweep } from './updates/hold-sweep.ts';
import { startKeyExpiry } from './updates/key-expiry.ts';
import { createLanes } from './updates/lanes.ts';
import { startLostAnswersWatch } from './updates/lost-answers.ts';

/** For pages of rows, exports and verifications: no more are read at a time. */
const PAGES_CONNECTIONS = 2;
/** For changes by operators. One that waits for the lock of an account does not delay other work. */
const CHANGES_CONNECTIONS = 2;

/**
 * Listens, and connects to PostgreSQL and RabbitMQ as they become available: neither has to be there at the start.
 * @throws the listen error when the port is taken.
 */
export async function startApi(settings: ApiSettings, log: Logger): Promise<Running & { port: number }> {
  const tracing = await startTracing(settings, 'api', log);
  const pool = createPool(settings.databaseUrl, 'api', settings.poolMax, settings.statementTimeoutMs);
  const pagesPool = createPool(settings.databaseUrl, 'api', PAGES_CONNECTIONS, settings.statementTimeoutMs);
  const changesPool = createPool(settings.databaseUrl, 'api', CHANGES_CONNECTIONS, settings.statementTimeoutMs);
  const pools = [pool, pagesPool, changesPool];
  const healthPool = createPool(settings.databaseUrl, 'api', 1, settings.statementTimeoutMs);
  const topology = topologyOf(settings.amqpNamespace);
  const relay = settings.relay === 'off' ? undefined : startRelay({ ...settings, topology, log, tracing });
  const metrics = createApiMetrics();
  const answers = new AnswersMemory();
  const lostAnswers = startLostAnswersWatch(pool, answers, log);
  const isShared = settings.auth === 'required' && settings.clientShares === 'on';
  const lanes = createLanes(settings.lanes, {
    databaseUrl: settings.databaseUrl,
    batchRowsMax: settings.batchRowsMax,
    queueRowsMax: settings.queueRowsMax,
    queueWaitMaxMs: settings.queueWaitMaxMs,
    statementTimeoutMs: settings.statementTimeoutMs,
    idempotencyKeysKeptMs: settings.idempotencyKeysKeptMs,
    isShared,
    log,
    tracing,
    declineLimit: new DeclineLimit(
      isShared ? settings.declinesKeptMax : Number.POSITIVE_INFINITY,
      settings.idempotencyKeysKeptMs,
    ),
    onChange: () => relay?.wake(),
    onBatch(...batch) {
      metrics.batches(...batch);
      bulkTurns.look();
    },
    answers,
  });
  const stopKeyExpiry =
    settings.relay === 'only' ? () => {} : startKeyExpiry(pool, settings.idempotencyKeysKeptMs, log);
  const stopHoldSweep = settings.relay === 'only' ? async () => {} : startHoldSweep(pool, () => relay?.wake(), log);
  const access = settings.relay === 'only' ? undefined : createAccess({ ...settings, pool, log });
  const accessLog = startAccessLog(log);
  const clientOf = (response: Response) => access?.clientOf(response) ?? '';
  const bulkTurns = createBulkTurns(lanes, settings.lanes * settings.batchRowsMax, clientOf);
  const pace = new Pace(settings.pagesSharePercent / 100, () => lanes.counts().legs);
  watchReading(pagesPool, (ms) => pace.spend(ms));
  const rows = createQueryLine({ pool, connections: settings.poolMax, clientOf });
  const pages = createQueryLine({ pool: pagesPool, connections: PAGES_CONNECTIONS, clientOf, pace });
  const changes = createQueryLine({ pool: changesPool, connections: CHANGES_CONNECTIONS, clientOf });
  metrics.watch({ lanes, lostAnswers, relay, pools, queryLines: [rows, pages, changes], healthPool });
  let stopping: Promise<void> | undefined;
  const health = {
    pool,
    healthPool,
    schemaVersion: await expectedSchemaVersion(),
    relayState: () => relay?.state() ?? { active: false },
    laneCounts: () => lanes.counts(),
    partProblems: async () => (access ? partProblems(lanes, pools, access) : []),
    readMetrics: () => readMetrics(metrics.registry),
    onRequestEnd: metrics.requestEnded,
    isStopping: () => stopping !== undefined,
    tracing,
    accessLog,
  };
  const live = createLiveStream({
    amqpUrl: settings.amqpUrl,
    topology,
    log,
    readMetrics: health.readMetrics,
    databaseState: () => databaseState(healthPool, health.schemaVersion),
    clientOf,
    mayGoOn: (response) => access?.mayGoOn(response) ?? true,
    boundOf,
    callerOf,
    isInside,
    processes: settings.apiProcesses,
    instance: `${hostname()}, process ${process.pid}`,
  });
  const app = access
    ? createApp({
        ...health,
        auth: settings.auth,
        bodyBytesMax: settings.bodyBytesMax,
        topology,
        lanes,
        rows,
        pages,
        changes,
        bulkTurns,
        answers,
        access,
        live,
      })
    : createHealthApp(health);

  async function stopRest(): Promise<void> {
    stopKeyExpiry();
    await Promise.all([access?.stop(), accessLog.stop(), lanes.stop(), lostAnswers.stop(), stopHoldSweep()]);
    await relay?.stop();
    await Promise.all([...pools, healthPool].map((one) => one.end()));
    await tracing?.stop();
  }
  const server = await startServer(
    app,
    settings.host,
    settings.port,
    {},
    (request) => access?.claimedBy(request) ?? '',
    settings.drainMsMin,
  ).catch(async (error: unknown) => {
    await stopRest();
    throw error;
  });
  metrics.watchServer(server);
  log.info({ host: settings.host, port: server.port, relay: settings.relay, auth: settings.auth }, 'api started');
  if (settings.auth === 'off')
    log.warn('AUTH is off: anyone who reaches this address of this machine may do everything');
  return {
    port: server.port,
    stop() {
      // First stop accepting requests; those in flight are still answered.
      stopping ??= Promise.all([live.end(), server.stop()]).then(stopRest);
      return stopping;
    },
  };
}

function callerOf(response: Response): Caller {
  const { actor = null, scopes = SCOPES, accountPrefix = null } = keyOf(response) ?? {};
  return { client: actor, scopes, accountPrefix };
}
