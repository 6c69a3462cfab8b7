// The API: one process, or several behind one port.
import cluster from 'node:cluster';
import { readApiSettings } from '../shared/config.ts';
import { runProcess } from '../shared/lifecycle.ts';
import { createLogger } from '../shared/logging.ts';
import { startApi } from './api.ts';
import { startCluster } from './cluster.ts';

await runProcess(async () => {
  const settings = readApiSettings();
  const log = createLogger('api', settings.logLevel);
  const several = cluster.isPrimary && settings.apiProcesses > 1;
  return { log, running: several ? await startCluster(settings.apiProcesses, log) : await startApi(settings, log) };
});
