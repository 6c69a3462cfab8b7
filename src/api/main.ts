// The API process.
import { readApiSettings } from '../shared/config.ts';
import { runProcess } from '../shared/lifecycle.ts';
import { createLogger } from '../shared/logging.ts';
import { startApi } from './api.ts';

await runProcess(async () => {
  const settings = readApiSettings();
  const log = createLogger('api', settings.logLevel);
  return { log, running: await startApi(settings, log) };
});
