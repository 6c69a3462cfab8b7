// The console's stream of server-sent events: figures every second, and events as they come. All watchers share one reading and
// one subscription, which exist only while somebody watches.
import type { RequestHandler, Response } from 'express';
import type { Logger } from '../../shared/logging.ts';
import type { Topology } from '../../shared/topology.ts';
import { sendProblem } from '../http/problems.ts';
import { type EventTap, startEventTap } from './event-tap.ts';
import { type Figures, figuresBetween, parseReading, type Reading } from './figures.ts';

const WATCHERS_MAX = 20;
const EVERY_MS = 1000;
/** A watcher that reads slower than it is told is let go. */
const UNREAD_BYTES_MAX = 256 * 1024;

/** Sent each second. */
export interface Live {
  /** Of this process's clock. */
  at: string;
  /** Null from the first reading until the second. */
  figures: Figures | null;
  database: 'ok' | string;
  /** Of the console's own link. */
  broker: 'connected' | 'disconnected';
  /** Which process this is, and how many stand behind its port. */
  instance: string;
  processes: number;
}

export interface LiveStream {
  handler: RequestHandler;
  /** Ends all streams: a stop waits for answers under way, and these would never end. */
  end(): Promise<void>;
}

export interface LiveStreamOptions {
  amqpUrl: string;
  topology: Topology;
  log: Logger;
  readMetrics: () => Promise<{ text: string }>;
  /** 'ok', or what is wrong with it, in a few words. */
  databaseState: () => Promise<string>;
  instance: string;
  processes: number;
}

export function createLiveStream(options: LiveStreamOptions): LiveStream {
  const { log, readMetrics, databaseState, instance, processes } = options;
  const watchers = new Set<Response>();
  let watching: { tap: EventTap; timer: NodeJS.Timeout } | undefined;
  let ended = false;

  function tell(event: string, data: object): void {
    const text = `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
    for (const watcher of watchers) {
      if (watcher.writableLength > UNREAD_BYTES_MAX) watcher.destroy();
      else watcher.write(text);
    }
  }

  function start(): NonNullable<typeof watching> {
    let before: { reading: Reading; atMs: number } | undefined;
    let isLooking = false;
    const tap = startEventTap({ ...options, onEvents: (events) => tell('events', events) });
    async function look(): Promise<void> {
      if (isLooking) return; // a database that hangs: the page sees that nothing comes
      isLooking = true;
      try {
        const [metrics, database] = await Promise.all([readMetrics(), databaseState()]);
        const atMs = performance.now();
        const reading = parseReading(metrics.text);
        const figures = before ? figuresBetween(before.reading, reading, (atMs - before.atMs) / 1000) : null;
        before = { reading, atMs };
        const broker = tap.connected ? 'connected' : 'disconnected';
        tell('live', { at: new Date().toISOString(), figures, database, broker, instance, processes } satisfies Live);
      } catch (error) {
        log.warn({ err: error }, 'the figures of the console could not be read');
      } finally {
        isLooking = false;
      }
    }
    void look();
    return { tap, timer: setInterval(look, EVERY_MS) };
  }

  async function rest(): Promise<void> {
    const over = watching;
    watching = undefined;
    clearInterval(over?.timer);
    await over?.tap.stop();
  }

  return {
    handler(_request, response) {
      if (ended || watchers.size >= WATCHERS_MAX) {
        return sendProblem(response, 'overloaded', {
          detail: ended ? 'This process is stopping.' : `${WATCHERS_MAX} consoles are open at this process.`,
        });
      }
      response.writeHead(200, {
        'content-type': 'text/event-stream',
        'cache-control': 'no-store',
        'x-accel-buffering': 'no', // nginx would gather them
        'x-content-type-options': 'nosniff',
      });
      response.write(':\n\n'); // the answer is there, before anything happens
      watchers.add(response);
      watching ??= start();
      response.once('close', () => {
        watchers.delete(response);
        if (watchers.size === 0) void rest();
      });
    },
    async end() {
      ended = true;
      for (const watcher of watchers) watcher.end();
      watchers.clear();
      await rest();
    },
  };
}
