// Moves outbox rows to RabbitMQ, at least once, in version order per account. Safe to run many copies: one is active
// at a time, held by a lock in PostgreSQL, and two that both believe they are only publish twice.
import { setTimeout as delay } from 'node:timers/promises';
import { type BrokerSession, keepBrokerLink } from '../../shared/broker.ts';
import { type Client, destroyClient, openClient } from '../../shared/database.ts';
import type { Running } from '../../shared/lifecycle.ts';
import { type PumpOptions, type RelayCounts, runPump } from './pump.ts';

/** Any number, the same for every relay. Advisory locks are per database, so the outbox is named too: a schema may have its own. */
const LOCK_KEY = 725_231_002;
const LOCK_RETRY_MS = 1000;
/** For the last note of progress. */
const RUN_OUT_MS = 1000;

export interface RelayOptions extends PumpOptions {
  databaseUrl: string;
  amqpUrl: string;
  statementTimeoutMs: number;
}

export interface Relay extends Running {
  /** Tells the relay that this process has just committed changes. */
  wake(): void;
  state(): { active: boolean; broker: 'connected' | 'disconnected' | 'blocked' } & RelayCounts;
}

export function startRelay(options: RelayOptions): Relay {
  const { log } = options;
  const counts: RelayCounts = { inFlight: 0, confirmed: 0, rejected: 0, abandoned: 0, republished: 0 };
  let activeSession: BrokerSession | undefined;
  let blocked = false;
  let awake = false;
  let onWake: (() => void) | undefined;

  async function wokenOr(timeoutMs: number): Promise<void> {
    if (!awake) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, timeoutMs);
        onWake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      onWake = undefined;
    }
    awake = false;
  }

  async function serve(session: BrokerSession): Promise<void> {
    blocked = false;
    session.connection.on('blocked', (reason) => {
      blocked = true;
      log.warn({ reason }, 'RabbitMQ is blocked: publishing waits');
    });
    session.connection.on('unblocked', () => {
      blocked = false;
      log.info('RabbitMQ is unblocked');
    });
    if (session.signal.aborted) return;
    // One term a session: whatever ends the term ends the session, so nothing half-open outlives it.
    const over = new AbortController();
    const signal = AbortSignal.any([session.signal, over.signal]);
    const clients: Client[] = [];
    const open = async () => {
      const client = await connectDatabase(options, signal);
      client.on('error', (error) => over.abort(error));
      client.on('end', () => over.abort(new Error('connection to PostgreSQL ended')));
      clients.push(client);
      return client;
    };
    // A query may never be answered; soon after the end nobody waits for it.
    signal.addEventListener('abort', () => setTimeout(() => clients.forEach(destroyClient), RUN_OUT_MS), {
      once: true,
    });
    try {
      const reader = await open();
      while (!(await acquireLock(reader))) {
        await delay(LOCK_RETRY_MS, undefined, { signal });
      }
      const maintainer = await open();
      activeSession = session;
      log.info('this relay is the active one');
      await runPump({ session, signal, reader, maintainer, counts, blocked: () => blocked, wokenOr }, options);
    } finally {
      if (activeSession === session) activeSession = undefined;
      over.abort(new Error('term over')); // ends the loop that did not fail
    }
  }

  const link = keepBrokerLink({ url: options.amqpUrl, service: 'relay', log, run: serve });
  const wake = () => {
    awake = true;
    onWake?.();
  };
  return {
    wake,
    state: () => ({
      active: activeSession !== undefined,
      broker: link.connected ? (blocked ? 'blocked' : 'connected') : 'disconnected',
      ...counts,
    }),
    async stop() {
      const stopped = link.stop();
      wake();
      await stopped;
    },
  };
}

function connectDatabase({ databaseUrl, statementTimeoutMs, log }: RelayOptions, signal: AbortSignal): Promise<Client> {
  const warn = (sentence: string) => log.warn(sentence);
  return openClient(databaseUrl, 'relay', { plans: 'indexed plans', statementTimeoutMs, warn }, signal);
}

async function acquireLock(client: Client): Promise<boolean> {
  const take = `SELECT pg_try_advisory_lock($1, 'outbox'::regclass::oid::integer) AS locked`;
  return (await client.query(take, [LOCK_KEY])).rows[0].locked;
}
