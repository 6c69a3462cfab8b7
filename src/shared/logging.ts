// JSON log lines: a constant sentence plus ids, never bodies and never secrets.
import { type DestinationStream, type Logger, type LoggerOptions, pino } from 'pino';

export type { Logger };

/** @param destination of the lines; standard output if it is not given. */
export function createLogger(service: string, level: string, destination?: DestinationStream): Logger {
  const options: LoggerOptions = {
    name: service,
    level,
    formatters: { level: (word) => ({ level: word }) }, // people and log stores know no number 40
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: ['*.password', '*.authorization', '*.input'], // input: the text that was no URL
  };
  return destination ? pino(options, destination) : pino(options);
}
