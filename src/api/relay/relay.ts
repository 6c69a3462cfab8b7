// Moves outbox rows to RabbitMQ, at least once, in version order per account: on one track to the
// queue of the ledger, on another to subscribers. Safe to run many copies: a lock in PostgreSQL
// decides which one is active, and two that both believe they are active only publish duplicates.
import { setTimeout as delay } from 'node:timers/promises';
import { backOffMs, jittered } from '../../shared/back-off.ts';
import type { Running } from '../../shared/lifecycle.ts';
import type { Logger } from '../../shared/logging.ts';
import { MESSAGE_EVENTS_MAX } from '../../shared/message-bounds.ts';
import type { Topology } from '../../shared/topology.ts';
import type { Tracing } from '../../shared/tracing.ts';
import type { TrackName } from './progress.ts';
import type { Destination } from './publisher.ts';
import { serveTerm, type Term } from './term.ts';
import { Track, type TrackCounts } from './track.ts';

const LEDGER_CONFIRM_TIMEOUT_MS = 30_000;
const SUBSCRIBERS_CONFIRM_TIMEOUT_MS = 10_000;
/** Between two terms, when the database fails. */
const TERM_PAUSE_MIN_MS = 200;
const TERM_PAUSE_MAX_MS = 5000;

export interface RelayOptions {
  databaseUrl: string;
  amqpUrl: string;
  amqpManagementUrl?: string | undefined;
  statementTimeoutMs: number;
  topology: Topology;
  log: Logger;
  relayRepublishMs: number;
  /** In a message to subscribers. */
  eventsPerMessageMax: number;
  snapshotPatienceMs: number;
  subscriberAsideMs: number;
  subscriberPatienceMs: number;
  subscriberPatienceBytes: number;
  tracing?: Tracing | undefined;
  /**
   * How long the broker may confirm nothing: 30 s for the ledger and 10 s for subscribers unless
   * given.
   */
  confirmTimeoutMs?: number;
  /** With another key than the default, two relays can be active at once: for tests. */
  lockKey?: number;
}

export type LinkState = 'connected' | 'blocked' | 'disconnected';

export interface TrackState extends TrackCounts {
  /**
   * State of its connection to RabbitMQ; undefined if this relay is not the active one, and so
   * needs none.
   */
  broker: LinkState | undefined;
}

export interface RelayState {
  /** Whether this is the active relay; the others stand by. */
  active: boolean;
  ledger: TrackState;
  subscribers: TrackState & {
    /** Events passed over, and queues put aside, since the relay became active. */
    passedOver: number;
    putAside: number;
    /** Set while a queue accepts no events. */
    waiting?: { forMs: number; firstPosition: number; lastPosition: number; queues: string[] };
  };
  /** Set while transactions block the truncation of the outbox. */
  truncation?: { waitsForMs: number; transactions: { pid: number; applicationName: string }[] };
}

export interface Relay extends Running {
  /** Notifies the relay that this process has just committed changes. */
  wake(): void;
  state(): RelayState;
}

export function startRelay(options: RelayOptions): Relay {
  const { log, topology, eventsPerMessageMax, tracing } = options;
  const trackTo = (name: TrackName, destination: Destination, timeoutMs: number) =>
    new Track({ name, topology, destination, log, confirmTimeoutMs: options.confirmTimeoutMs ?? timeoutMs, tracing });
  const ledger = trackTo(
    'ledger',
    { exchange: topology.ledgerExchange, routingKey: () => '', eventsPerMessageMax: MESSAGE_EVENTS_MAX },
    LEDGER_CONFIRM_TIMEOUT_MS,
  );
  const subscribers = trackTo(
    'subscribers',
    { exchange: topology.eventsExchange, routingKey: ({ type }) => type, eventsPerMessageMax },
    SUBSCRIBERS_CONFIRM_TIMEOUT_MS,
  );
  const stopping = new AbortController();
  let term: Term | undefined;

  const finished = (async () => {
    for (let attempt = 1; !stopping.signal.aborted; attempt += 1) {
      try {
        await serveTerm(options, { ledger, subscribers }, stopping.signal, (now) => {
          term = now;
          if (now) attempt = 1;
        });
      } catch (error) {
        const pauseMs = jittered(backOffMs(attempt, TERM_PAUSE_MIN_MS, TERM_PAUSE_MAX_MS));
        log.warn({ err: error, attempt, pauseMs }, 'the term of this relay ended');
        await delay(pauseMs, undefined, { signal: stopping.signal }).catch(() => {});
      }
    }
  })();

  const trackState = (track: Track): TrackState => {
    const link = term?.links[track.name];
    const broker = link && (!link.connected ? 'disconnected' : track.isBlocked ? 'blocked' : 'connected');
    return { broker, ...track.counts };
  };
  return {
    wake() {
      ledger.wake();
      subscribers.wake();
    },
    state() {
      const { passedOver = 0, putAside = 0, standstill } = term?.patience ?? {};
      const waiting = standstill && {
        forMs: Math.round(performance.now() - standstill.sinceMs),
        firstPosition: standstill.firstPosition,
        lastPosition: standstill.lastPosition,
        queues: standstill.queues,
      };
      const truncation = term?.truncation.waiting;
      return {
        active: term !== undefined,
        ledger: trackState(ledger),
        subscribers: { ...trackState(subscribers), passedOver, putAside, ...(waiting && { waiting }) },
        ...(truncation && {
          truncation: {
            waitsForMs: Math.round(performance.now() - truncation.sinceMs),
            transactions: truncation.transactions
              .slice(0, 10)
              .map(({ pid, applicationName }) => ({ pid, applicationName })),
          },
        }),
      };
    },
    async stop() {
      stopping.abort(new Error('stopping'));
      await finished;
    },
  };
}
