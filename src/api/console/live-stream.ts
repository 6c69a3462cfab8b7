// The console's stream of server-sent events: figures every second, and events as they come. All watchers share one reading and
// one subscription, which exist only while somebody watches.
import type { RequestHandler, Response } from 'express';
import { inTime } from '../../shared/in-time.ts';
import type { Logger } from '../../shared/logging.ts';
import type { Topology } from '../../shared/topology.ts';
import { sendProblem } from '../http/problems.ts';
import { type EventTap, type LedgerQueue, startEventTap } from './event-tap.ts';
import { beganAnew, type Figures, figuresBetween, parseReading, type Reading } from './figures.ts';

const WATCHERS_MAX = 20;
const EVERY_MS = 1000;
/** A watcher that reads slower than it is told is let go. */
const UNREAD_BYTES_MAX = 256 * 1024;
/** What is not known by then is told as not known. */
const READING_MS_MAX = 2500;
const DATABASE_MS_MAX = 1500;

/** Sent each second. */
export interface Live {
  /** Of this process's clock. */
  at: string;
  /** Null where they are not known. */
  figures: Figures | null;
  /** Why they are not; null before the second reading. */
  problem: string | null;
  database: 'ok' | string;
  /** Of the console's own link. */
  broker: 'connected' | 'disconnected';
  /** Null where the broker does not tell. */
  ledgerQueue: LedgerQueue | null;
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
  /** Whether the key that a stream was asked for with was revoked since. */
  isRevoked: (response: Response) => Promise<boolean>;
  instance: string;
  processes: number;
}

export function createLiveStream(options: LiveStreamOptions): LiveStream {
  const { readMetrics, databaseState, isRevoked, instance, processes } = options;
  const metricsInTime = inTime(readMetrics, READING_MS_MAX);
  const databaseInTime = inTime(databaseState, DATABASE_MS_MAX);
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

  /** Their page connects again, and is told what is wrong with the key. */
  function letRevokedGo(): void {
    for (const watcher of watchers) {
      void isRevoked(watcher).then((revoked) => {
        if (!revoked || !watchers.delete(watcher)) return;
        watcher.end();
      });
    }
  }

  function start(): NonNullable<typeof watching> {
    let before: { reading: Reading; atMs: number } | undefined;
    let isLooking = false;
    const tap = startEventTap({ ...options, onEvents: (events) => tell('events', events) });
    /** What happened since the last reading. */
    function figuresOf(metrics: { text: string } | undefined): Pick<Live, 'figures' | 'problem'> {
      if (!metrics) return { figures: null, problem: 'a process does not tell its figures' };
      const earlier = before;
      before = { reading: parseReading(metrics.text), atMs: performance.now() };
      if (!earlier) return { figures: null, problem: null };
      if (beganAnew(earlier.reading, before.reading)) return { figures: null, problem: 'a process has begun anew' };
      const seconds = (before.atMs - earlier.atMs) / 1000;
      return { figures: figuresBetween(earlier.reading, before.reading, seconds), problem: null };
    }
    async function look(): Promise<void> {
      if (isLooking) return;
      isLooking = true;
      letRevokedGo();
      const [metrics, database = 'does not answer'] = await Promise.all([metricsInTime(), databaseInTime()]);
      isLooking = false;
      tell('live', {
        at: new Date().toISOString(),
        ...figuresOf(metrics),
        database,
        broker: tap.connected ? 'connected' : 'disconnected',
        ledgerQueue: tap.ledgerQueue() ?? null,
        ...{ instance, processes },
      } satisfies Live);
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
    handler(request, response) {
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
      if (request.method === 'HEAD') return response.end(); // nothing else of it would ever be sent
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
