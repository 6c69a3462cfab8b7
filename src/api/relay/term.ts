// One term of the active relay: from taking the lock to the loss of a connection to PostgreSQL. The
// links to RabbitMQ come and go within it. A new term starts after what the last one noted.
//
// The lock is held by a connection that does little else, and that the server ends when it is idle
// for a while: so a frozen process, whose kernel still answers for it, loses the lock too. When it
// thaws, it publishes duplicates of what it had in hand, its notes are below those already written,
// and it truncates nothing that has changed: all of this is safe.
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { type BrokerLink, keepBrokerLink } from '../../shared/broker.ts';
import { type Client, createPool, destroyClient, openClient } from '../../shared/database.ts';
import { runDuties } from './duties.ts';
import { Lost } from './lost.ts';
import { Notes } from './note.ts';
import { OutboxReader } from './outbox-reader.ts';
import { Patience } from './patience.ts';
import { raisePosition, readProgress } from './progress.ts';
import { Recording } from './recording.ts';
import type { RelayOptions } from './relay.ts';
import { OutboxUnreadable, type Track } from './track.ts';
import { Truncation } from './truncation.ts';

/**
 * Any number, the same for every relay. Advisory locks are per database, so the outbox is named
 * too: a schema may have its own.
 */
const LOCK_KEY = 725_231_002;
const LOCK_RETRY_MS = 1000;
/** Besides the one that holds the lock: two tracks that read, and the duties. */
const CONNECTIONS = 4;
/** For the last note of progress. */
const RUN_OUT_MS = 1000;
/** Notes are made more often than that, even when there is nothing to note. */
const FROZEN_MS = 8000;
const HEARTBEAT_MS = 2000;

/** What a term lets others see of it. */
export interface Term {
  links: { ledger: BrokerLink; subscribers: BrokerLink };
  recording: Recording;
  patience: Patience;
  truncation: Truncation;
}

export interface Tracks {
  ledger: Track;
  subscribers: Track;
}

/**
 * Waits for the lock and serves until the signal is aborted. @throws when a connection to
 * PostgreSQL fails.
 * @param onTerm gets the term when it has begun, and undefined when it is over.
 */
export async function serveTerm(
  options: RelayOptions,
  { ledger, subscribers }: Tracks,
  stopping: AbortSignal,
  onTerm: (term: Term | undefined) => void,
): Promise<void> {
  const over = new AbortController();
  const signal = AbortSignal.any([stopping, over.signal]);
  const { databaseUrl, statementTimeoutMs, log } = options;
  const keeper = await openKeeper(options, signal);
  keeper.on('error', (error) => over.abort(error));
  keeper.on('end', () => over.abort(new Error('connection to PostgreSQL ended')));
  // A query may never be answered; shortly after the end, nothing waits for it.
  signal.addEventListener('abort', () => setTimeout(destroyClient, RUN_OUT_MS, keeper), { once: true });
  const database = createPool(databaseUrl, 'relay', CONNECTIONS, statementTimeoutMs);
  let links: Term['links'] | undefined;
  try {
    await takeLock(keeper, options.lockKey ?? LOCK_KEY, signal);
    const raisedTo = await raisePosition(database);
    if (raisedTo !== null) {
      log.warn({ raisedTo }, 'outbox_position was too low, as after a move without sequences: raised');
    }
    const noted = await readProgress(database);
    // If the sequence was too low, rows may have been inserted below the noted positions.
    const isAsNoted = raisedTo === null;
    const reader = new OutboxReader(database);
    ledger.begin(database, reader, isAsNoted ? Math.max(noted.published, noted.ledger) : noted.ledger);
    subscribers.begin(database, reader, isAsNoted ? noted.subscribers : Math.min(noted.subscribers, noted.ledger));
    const recording = new Recording(database, ledger, noted.ledger);
    const duties = { ...options, ledger, subscribers, recording, exchange: options.topology.eventsExchange, signal };
    const lost = new Lost(database, { ...duties, republishMs: options.relayRepublishMs });
    const truncation = new Truncation(database, duties);
    const patience = new Patience(database, duties);
    const notes = new Notes(database, recording, ledger, subscribers);
    const heartbeat = { pauseMs: HEARTBEAT_MS, round: async () => void (await keeper.query('SELECT 1')) };
    links = { ledger: link(options, ledger, over), subscribers: link(options, subscribers, over) };
    onTerm({ links, recording, patience, truncation });
    log.info('this relay is the active one');
    await runDuties([recording, lost, truncation, patience, notes, heartbeat], signal);
    await notes.round().catch(() => {}); // fewer duplicates from the next relay
    if (!stopping.aborted) throw over.signal.reason;
  } catch (error) {
    if (!stopping.aborted) throw over.signal.aborted ? over.signal.reason : error;
  } finally {
    over.abort(new Error('term over'));
    await Promise.all(Object.values(links ?? {}).map(({ stop }) => stop()));
    onTerm(undefined);
    destroyClient(keeper);
    void database.end();
  }
}

function link(options: RelayOptions, track: Track, over: AbortController): BrokerLink {
  return keepBrokerLink({
    url: options.amqpUrl,
    service: `relay ${track.name}`,
    log: options.log.child({ track: track.name }),
    run: async (session) => {
      try {
        await track.serve(session);
      } catch (error) {
        if (!(error instanceof OutboxUnreadable)) throw error;
        over.abort(error.cause); // which stops this link: no failure of RabbitMQ
        if (!session.signal.aborted) await once(session.signal, 'abort');
      }
    },
  });
}

/** The connection that holds the lock. */
function openKeeper({ databaseUrl, statementTimeoutMs, log }: RelayOptions, signal: AbortSignal): Promise<Client> {
  const warn = (sentence: string) => log.warn(sentence);
  return openClient(databaseUrl, 'relay', { plans: 'indexed plans', statementTimeoutMs, warn }, signal);
}

async function takeLock(client: Client, key: number, signal: AbortSignal): Promise<void> {
  const take = `SELECT pg_try_advisory_lock($1, 'outbox'::regclass::oid::integer) AS locked`;
  // Set before the lock is taken: a process frozen right after taking it would otherwise keep it.
  await client.query(`SELECT set_config('idle_session_timeout', $1, false)`, [String(FROZEN_MS)]);
  while (!(await client.query(take, [key])).rows[0].locked) {
    await delay(LOCK_RETRY_MS, undefined, { signal });
  }
}
