// JSON log lines: a constant sentence plus ids, never bodies and never secrets.
import { type Logger, pino } from 'pino';

export type { Logger };

export function createLogger(service: string, level: string): Logger {
  return pino({
    name: service,
    level,
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: ['*.password', '*.authorization', '*.input'], // input: the text that was no URL
  });
}
