// The console's stream of server-sent events: figures every second, and events as they come. All
// watchers share one reading and one subscription, which exist only while someone watches.
import type { RequestHandler, Response } from 'express';
import type { Scope } from '../../shared/api-key.ts';
import type { BalanceEvent } from '../../shared/contract.ts';
import { inTime } from '../../shared/in-time.ts';
import type { Logger } from '../../shared/logging.ts';
import type { Topology } from '../../shared/topology.ts';
import { sendProblem } from '../http/problems.ts';
import { type EventTap, type LedgerQueue, startEventTap } from './event-tap.ts';
import { beganAnew, type Figures, figuresBetween, parseReading, type Reading } from './figures.ts';
import { type Bound, Watchers, type WatchersOptions } from './watchers.ts';

const EVERY_MS = 1000;
/** Anything not read within this time is reported as unknown. */
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
  /** Null where the broker does not say. */
  ledgerQueue: { waiting: LedgerQueue['waiting'] | null; consumers: LedgerQueue['consumers'] } | null;
  /** Which process this is, and how many share its port. */
  instance: string;
  processes: number;
}

/** Sent first: the client whose key opened the stream, and what that key may do. */
export interface Caller {
  /** null with AUTH=off, where anyone may do everything. */
  client: string | null;
  scopes: readonly Scope[];
  /** The beginning of the ids of the accounts that the key is bound to; null: all accounts. */
  accountPrefix: string | null;
}

export interface LiveStream {
  handler: RequestHandler;
  /** Ends all streams: a stop waits for answers in flight, and these would never end. */
  end(): Promise<void>;
}

export interface LiveStreamOptions extends WatchersOptions {
  amqpUrl: string;
  topology: Topology;
  log: Logger;
  readMetrics: () => Promise<{ text: string }>;
  /** 'ok', or what is wrong with it, in a few words. */
  databaseState: () => Promise<string>;
  callerOf: (response: Response) => Caller;
  /** Whether a bound covers an account. */
  isInside: (bound: Bound, accountId: string) => boolean;
  instance: string;
  processes: number;
}

/** For keys bound to some accounts: they must not learn how much happens on the others. */
function withoutOthers(live: Live): Live {
  const { ledgerQueue } = live;
  return {
    ...live,
    figures: null,
    problem: 'they cover all accounts, and this key is bound to some of them',
    ledgerQueue: ledgerQueue && { ...ledgerQueue, waiting: null },
  };
}

/** What happened since the last reading. */
function createFigures(): (metrics: { text: string } | undefined) => Pick<Live, 'figures' | 'problem'> {
  let before: { reading: Reading; atMs: number } | undefined;
  return (metrics) => {
    if (!metrics) return { figures: null, problem: 'a process does not report its figures' };
    const earlier = before;
    before = { reading: parseReading(metrics.text), atMs: performance.now() };
    if (!earlier) return { figures: null, problem: null };
    if (beganAnew(earlier.reading, before.reading)) return { figures: null, problem: 'a process was restarted' };
    const seconds = (before.atMs - earlier.atMs) / 1000;
    return { figures: figuresBetween(earlier.reading, before.reading, seconds), problem: null };
  };
}

export function createLiveStream(options: LiveStreamOptions): LiveStream {
  const { amqpUrl, topology, log, readMetrics, databaseState } = options;
  const { clientOf, callerOf, isInside, instance, processes } = options;
  const metricsInTime = inTime(readMetrics, READING_MS_MAX);
  const databaseInTime = inTime(databaseState, DATABASE_MS_MAX);
  const watchers = new Watchers(options);
  let watching: { tap: EventTap; timer: NodeJS.Timeout } | undefined;
  let ended = false;

  function tellEvents(events: BalanceEvent[]): void {
    watchers.tell('events', (bound) => {
      const seen = events.filter(({ data }) => isInside(bound, data.accountId));
      return seen.length > 0 ? seen : undefined;
    });
  }

  function start(): NonNullable<typeof watching> {
    const figuresOf = createFigures();
    let isLooking = false;
    const tap = startEventTap(amqpUrl, topology, tellEvents, log);
    async function look(): Promise<void> {
      if (isLooking) return;
      isLooking = true;
      const [metrics, database = 'does not answer'] = await Promise.all([metricsInTime(), databaseInTime()]);
      isLooking = false;
      const live: Live = {
        at: new Date().toISOString(),
        ...figuresOf(metrics),
        database,
        broker: tap.connected ? 'connected' : 'disconnected',
        ledgerQueue: tap.ledgerQueue() ?? null,
        instance,
        processes,
      };
      watchers.tell('live', (bound) => (bound === null ? live : withoutOthers(live)));
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
      const isHead = request.method === 'HEAD';
      if (ended || (isHead ? watchers.isFull : !watchers.makeRoom(clientOf(response)))) {
        return sendProblem(response, 'overloaded', {
          detail: ended ? 'This process is stopping.' : `${Watchers.max} consoles are open at this process.`,
        });
      }
      response.writeHead(200, {
        'content-type': 'text/event-stream',
        'x-accel-buffering': 'no', // otherwise nginx buffers the events
      });
      if (isHead) return response.end(); // nothing else of it would ever be sent
      response.write(`event: caller\ndata: ${JSON.stringify(callerOf(response))}\n\n`);
      watchers.add(response);
      watching ??= start();
      response.once('close', () => {
        watchers.remove(response);
        if (watchers.size === 0) void rest();
      });
    },
    async end() {
      ended = true;
      watchers.endAll();
      await rest();
    },
  };
}
