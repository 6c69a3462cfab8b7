// The API process: HTTP, the lanes that apply updates, and the relay (or only the relay).
import { readApiSettings } from '../shared/config.ts';
import { createPool } from '../shared/database.ts';
import { runProcess } from '../shared/lifecycle.ts';
import { createLogger } from '../shared/logging.ts';
import { expectedSchemaVersion } from '../shared/migrations.ts';
import { topologyOf } from '../shared/topology.ts';
import { createApp, createHealthApp } from './app.ts';
import { createLanes } from './lanes.ts';
import { startRelay } from './relay.ts';
import { startServer } from './server.ts';

await runProcess(async () => {
  const settings = readApiSettings();
  const log = createLogger('api', settings.logLevel);
  const pool = createPool(settings.databaseUrl, 'api', settings.poolMax, settings.statementTimeoutMs);
  const topology = topologyOf(settings.amqpNamespace);
  const relay = settings.relay === 'off' ? undefined : startRelay({ ...settings, topology, log });
  const lanes = createLanes(settings.lanes, { ...settings, log, onChange: () => relay?.wake() });
  const health = {
    pool,
    schemaVersion: await expectedSchemaVersion(),
    relayState: () => relay?.state() ?? { active: false },
    log,
  };
  const app =
    settings.relay === 'only'
      ? createHealthApp(health)
      : createApp({ ...health, lanes, bodyBytesMax: settings.bodyBytesMax });
  const server = await startServer(app, settings.host, settings.port);
  log.info({ host: settings.host, port: server.port, relay: settings.relay }, 'api started');
  return {
    log,
    running: {
      async stop() {
        await server.stop(); // no new requests; the ones under way are answered
        await lanes.stop();
        await relay?.stop();
        await pool.end();
      },
    },
  };
});
