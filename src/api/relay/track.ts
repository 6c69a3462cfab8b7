// One of the two ways out of the outbox for events: to the ledger's queue, or to subscribers. Reads
// events after its cursor and publishes them, with many in flight. Events without a confirm,
// because a queue refused them or the session ended, are owed: they are read and published again.
// The first is sent alone until it is confirmed, so a failing queue costs the others only one
// duplicate per attempt.
//
// docs/relay.md has the picture. Each state has one owner. This class owns cursor, in flight and
// owed; they determine how far the track is done.
import { setTimeout as delay } from 'node:timers/promises';
import { backOffMs } from '../../shared/back-off.ts';
import { answered, type BrokerSession } from '../../shared/broker.ts';
import { openChannel } from '../../shared/channel.ts';
import type { Pool } from '../../shared/database.ts';
import type { Logger } from '../../shared/logging.ts';
import { DELETED_QUEUE_SETTLE_MS, declareTopology, type Topology } from '../../shared/topology.ts';
import type { Tracing } from '../../shared/tracing.ts';
import { createWakeUp } from '../../shared/wake-up.ts';
import { AFTER_ALL, type OutboxPage, type OutboxRow, readOutbox } from './outbox.ts';
import { OutboxCursor } from './outbox-cursor.ts';
import type { OutboxReader, Step } from './outbox-reader.ts';
import type { TrackName } from './progress.ts';
import { createPublisher, type Destination, type Publisher, type PublishOutcome } from './publisher.ts';
import { type Range, Ranges } from './ranges.ts';

/** Largest page of owed rows. */
const OWED_ROWS_MAX = 1000;
/** Messages that are published at a time. At most twice as many wait for their confirm. */
const MESSAGES_MAX = 1000;
/** Pause before looking again for changes made by other processes. */
const IDLE_MS = 50;
/**
 * Pause after a page that was not full, so that rows arriving meanwhile share one read, and their
 * messages one commit of the worker.
 */
const READ_PAUSE_MS = 25;
/** Pause before a gap is read again: its transaction is usually committing right now. */
const GAP_PAUSE_MS = 5;
/** Above this many, owed ranges are merged: each costs an index probe per page. */
const RANGES_MAX = 10_000;
/** After this many unroutable events, no queue is assumed to be bound. */
const UNBOUND_EVENTS_MIN = 100;
const OWED_PAUSE_MIN_MS = 100;
const OWED_PAUSE_MAX_MS = 10_000;
/**
 * The session is replaced after nothing but refusals for this long. The ledger's queue has no
 * length limit, so it refuses only while it has no leader. RabbitMQ 3.10 may then refuse everything
 * on this channel until the old leader's node is back; on another channel publishing works.
 */
const LEDGER_REFUSALS_MS_MAX = 500;

/** Since the start of the process, but for what is in flight. */
export interface TrackCounts {
  /** Events published and not yet answered. */
  inFlight: number;
  confirmed: number;
  /** Events in messages that some queue refused. */
  rejected: number;
  /** Events that no queue was bound for. */
  unrouted: number;
  /** Events published again because a confirm did not come, or the ledger lacked them. */
  republished: number;
}

export interface TrackOptions {
  name: TrackName;
  topology: Topology;
  destination: Destination;
  log: Logger;
  /** The connection is replaced if the broker confirms nothing for this long and is not blocked. */
  confirmTimeoutMs: number;
  tracing?: Tracing | undefined;
}

/** PostgreSQL did not answer: a new RabbitMQ session does not help. */
export class OutboxUnreadable extends Error {
  override name = 'OutboxUnreadable';
}

const failed = (cause: Error): never => {
  throw new OutboxUnreadable(cause.message, { cause });
};

export class Track {
  readonly name: TrackName;
  readonly counts: TrackCounts = { inFlight: 0, confirmed: 0, rejected: 0, unrouted: 0, republished: 0 };
  isBlocked = false;
  readonly #options: TrackOptions;
  #database: Pool | undefined;
  #reader: OutboxReader | undefined;
  #cursor = new OutboxCursor();
  readonly #owed = new Ranges();
  #owedDueAtMs = 0;
  #refusedInARow = 0;
  readonly #inFlight = new Set<number>();
  #unroutedInARow = 0;
  /** Since when the session has had only refusals; undefined after each confirm. */
  #refusedAtMs: number | undefined;
  #blockedAtMs = Number.NEGATIVE_INFINITY;
  readonly #changes = createWakeUp();
  readonly #answers = createWakeUp();
  #session: BrokerSession | undefined;
  #ask: (() => Promise<{ ledgerQueueMessages: number }>) | undefined;

  constructor(options: TrackOptions) {
    this.#options = options;
    this.name = options.name;
  }

  /**
   * Begins a term.
   * @param reader shared by both tracks.
   * @param done the position up to which everything is done.
   */
  begin(database: Pool, reader: OutboxReader, done: number): void {
    this.#database = database;
    this.#reader = reader;
    this.#cursor = new OutboxCursor(done);
    this.#owed.remove(0, AFTER_ALL);
    this.#inFlight.clear();
    this.counts.inFlight = 0;
  }

  /** Everything up to this position is confirmed. It falls when something is owed again. */
  done(): number {
    let below = Math.min(
      this.#cursor.behind + 1,
      this.#cursor.gaps[0]?.first ?? Number.POSITIVE_INFINITY,
      this.#owed.first,
    );
    for (const position of this.#inFlight) below = Math.min(below, position);
    return below - 1;
  }

  /** The last position that was published, or is in flight. */
  get publishedUpTo(): number {
    return this.#cursor.behind;
  }

  /**
   * Whether it owes anything: events that a queue refused, or that had no confirm when a session
   * ended.
   */
  get isOwing(): boolean {
    return this.#owed.size > 0;
  }

  /** Whether there is a session. */
  get isServing(): boolean {
    return this.#ask !== undefined;
  }

  /** Ends the session; another follows. */
  reconnect(reason: Error): void {
    this.#session?.end(reason);
  }

  /** How long there has been no alarm of the broker. */
  unblockedForMs(): number {
    return this.isBlocked ? 0 : performance.now() - this.#blockedAtMs;
  }

  wake(): void {
    this.#changes.wake();
  }

  /** Positions to be published again. */
  owe(positions: readonly number[]): void {
    // Positions after the cursor are read anyway.
    for (const position of positions) {
      if (position <= this.#cursor.behind && !this.#inFlight.has(position)) this.#owed.add(position);
    }
    this.#owedDueAtMs = 0;
    this.wake();
  }

  /** Drops everything up to a position, whatever its state. */
  passOver(upTo: number): void {
    this.#owed.remove(0, upTo);
    for (const position of this.#inFlight) if (position <= upTo) this.#inFlight.delete(position);
    this.#cursor = this.#cursor.forget(upTo);
    this.wake();
  }

  /**
   * Declares the queues, and returns how many messages are ready in the ledger's queue; undefined
   * without a session.
   */
  async askQueue(): Promise<{ ledgerQueueMessages: number } | undefined> {
    const session = this.#session;
    return this.#ask?.().catch((error: Error) => {
      session?.end(error); // the link reconnects: PostgreSQL has not failed
      return undefined;
    });
  }

  /** Publishes until the session ends. @throws OutboxUnreadable */
  async serve(session: BrokerSession): Promise<void> {
    const { topology, destination, tracing, log } = this.#options;
    const { signal } = session;
    this.isBlocked = false;
    session.connection.on('blocked', (reason) => {
      this.isBlocked = true;
      log.warn({ reason, track: this.name }, 'RabbitMQ is blocked: publishing waits');
    });
    session.connection.on('unblocked', () => {
      this.isBlocked = false;
      this.#blockedAtMs = performance.now(); // what waited out an alarm is not late
      log.info({ track: this.name }, 'RabbitMQ is unblocked');
    });
    signal.addEventListener('abort', () => {
      this.#changes.wake();
      this.#answers.wake();
    });
    const channel = await openChannel(session.connection.createConfirmChannel(), session);
    const declare = () => answered('declaring the queues', declareTopology(channel, topology));
    await declare();
    this.#ask = declare;
    this.#session = session;
    this.#refusedAtMs = undefined;
    this.#oweInFlight(); // of a session whose work still hangs in an unanswered query
    const publisher = createPublisher(channel, session, destination, tracing);
    try {
      while (!signal.aborted) await this.#round(session, publisher);
    } finally {
      if (this.#session === session) {
        this.#ask = undefined;
        this.#session = undefined;
        this.#oweInFlight();
      }
    }
  }

  /** Their confirms cannot come any more. */
  #oweInFlight(): void {
    for (const position of this.#inFlight) this.#owed.add(position);
    this.#inFlight.clear();
    this.counts.inFlight = 0;
    this.#owedDueAtMs = 0;
  }

  async #round(session: BrokerSession, publisher: Publisher): Promise<void> {
    const { signal } = session;
    await this.#room(session, publisher);
    if (signal.aborted) return;
    if (this.#owed.size > 0 && performance.now() >= this.#owedDueAtMs) return this.#settleOwed(session, publisher);
    if (this.#owed.size > RANGES_MAX) this.#owed.coarsen();
    const cursor = this.#cursor;
    const { page, cursor: next, isFull, readAtMs } = await this.#next(cursor);
    if (signal.aborted) return; // not noted, and so read again
    if (cursor !== this.#cursor) return; // passed over meanwhile
    this.#cursor = next;
    if (this.#isUnbound) await this.#publishUnbound(page, session, publisher);
    else await this.#publishInParts(page, session, publisher);
    if (page.length === 0) {
      const owedInMs =
        this.#owed.size > 0 ? Math.max(0, this.#owedDueAtMs - performance.now()) : Number.POSITIVE_INFINITY;
      await this.#changes.wokenOr(Math.min(next.gaps.length > 0 ? GAP_PAUSE_MS : IDLE_MS, owedInMs));
    }
    // Counted from when it was read, perhaps for the other track: so both reach the next page at
    // the same time.
    const pauseMs = isFull ? 0 : READ_PAUSE_MS - (performance.now() - readAtMs);
    if (pauseMs > 0) await delay(pauseMs, undefined, { signal }).catch(() => {});
  }

  /**
   * While no queue is bound, only the first event of each type on a page is published, in order. If
   * it returns as unroutable, so would the others of its type: they were committed before it was
   * returned. The first event that is routed ends this mode, from that event on.
   */
  async #publishUnbound(page: OutboxPage, session: BrokerSession, publisher: Publisher): Promise<void> {
    const unrouted = new Set<OutboxRow['type']>();
    for (const { position } of page) this.#inFlight.add(position);
    for (const row of page) {
      const { position, type } = row;
      if (!this.#isUnbound) {
        this.#inFlight.delete(position);
        this.#owed.add(position);
      } else if (unrouted.has(type)) {
        this.#inFlight.delete(position);
        this.counts.unrouted += 1;
      } else {
        const before = this.counts.unrouted;
        this.#publishAll([row], session, publisher);
        await this.#untilAnswered(session, publisher, () => !this.#inFlight.has(position));
        // It was not answered: the others of the page are owed with it.
        if (session.signal.aborted) return;
        if (this.counts.unrouted > before) unrouted.add(type); // not when it was passed over
      }
    }
  }

  get #isUnbound(): boolean {
    return this.#unroutedInARow >= UNBOUND_EVENTS_MIN;
  }

  /**
   * The first row alone, then twice as many each time while all are confirmed. Rows that a queue
   * refuses again wait for the next attempt.
   */
  async #settleOwed(session: BrokerSession, publisher: Publisher): Promise<void> {
    const end = [...this.#owed].at(-1)?.last ?? 0;
    const { rejected } = this.counts;
    for (let limit = 1; this.#owed.first <= end; limit = Math.min(OWED_ROWS_MAX, 2 * limit)) {
      const ranges = [...this.#owed].filter(({ first }) => first <= end);
      const page = await this.#read(AFTER_ALL, ranges, limit);
      if (session.signal.aborted) return;
      const last = page.length < limit ? end : (page.at(-1)?.position ?? end);
      for (const range of ranges) if (range.first <= last) this.#owed.remove(range.first, Math.min(range.last, last));
      this.#publishAll(page, session, publisher);
      this.counts.republished += page.length;
      await this.#untilAnswered(session, publisher, () => this.#inFlight.size === 0);
      if (session.signal.aborted || this.counts.rejected > rejected) return;
    }
    this.#refusedInARow = 0;
  }

  /** Resolves when no more than a page is in flight: many small reads cost more than a few large ones. */
  async #room(session: BrokerSession, publisher: Publisher): Promise<void> {
    const reader = this.#reader as OutboxReader;
    await this.#untilAnswered(session, publisher, () => !this.isBlocked && this.#inFlight.size <= reader.rowsMax);
  }

  /**
   * Publishes few enough messages at a time that a slow broker confirms each of them within the
   * time-out. The whole page is in flight from the start: it is owed if the session ends.
   */
  async #publishInParts(page: OutboxPage, session: BrokerSession, publisher: Publisher): Promise<void> {
    const part = MESSAGES_MAX * this.#options.destination.eventsPerMessageMax;
    for (const { position } of page) this.#inFlight.add(position);
    for (let first = 0; first < page.length; first += part) {
      await this.#untilAnswered(session, publisher, () => !this.isBlocked && publisher.waiting() <= MESSAGES_MAX);
      if (session.signal.aborted) return;
      this.#publishAll(page.slice(first, first + part), session, publisher);
    }
  }

  /**
   * Resolves when `isEnough` returns true or the session has ended. Ends the session if nothing is
   * confirmed for too long.
   */
  async #untilAnswered(session: BrokerSession, publisher: Publisher, isEnough: () => boolean): Promise<void> {
    const { confirmTimeoutMs } = this.#options;
    while (!session.signal.aborted) {
      // Checked even if there is enough room: nothing else watches the last few messages in flight.
      if (Math.min(publisher.oldestWaitMs(), this.unblockedForMs()) > confirmTimeoutMs)
        session.end(new Error(`RabbitMQ confirmed nothing for ${confirmTimeoutMs} ms`));
      if (isEnough()) return;
      await this.#answers.wokenOr(100);
    }
  }

  #next(cursor: OutboxCursor): Promise<Step> {
    return (this.#reader as OutboxReader).next(cursor).catch(failed);
  }

  #read(after: number, ranges: Iterable<Range>, limit: number): Promise<OutboxPage> {
    return readOutbox(this.#database as Pool, after, ranges, limit).catch(failed);
  }

  #publishAll(rows: readonly OutboxRow[], session: BrokerSession, publisher: Publisher): void {
    const { eventsPerMessageMax } = this.#options.destination;
    for (const { position } of rows) this.#inFlight.add(position);
    this.counts.inFlight = this.#inFlight.size;
    for (let first = 0; first < rows.length; first += eventsPerMessageMax) {
      const message = rows.slice(first, first + eventsPerMessageMax);
      publisher.publish(message, (outcome) => this.#answered(message, outcome, session));
    }
  }

  #answered(rows: readonly OutboxRow[], outcome: PublishOutcome, session: BrokerSession): void {
    const isUnrouted = outcome === 'unroutable' && this.name === 'subscribers'; // no queue is bound
    const isDone = outcome === 'confirmed' || isUnrouted;
    for (const { position } of rows) {
      if (!this.#inFlight.delete(position) || isDone) continue;
      this.#owed.add(position);
    }
    this.counts.inFlight = this.#inFlight.size;
    this.#unroutedInARow = isUnrouted ? this.#unroutedInARow + rows.length : 0;
    if (isUnrouted) this.counts.unrouted += rows.length;
    else if (isDone) this.counts.confirmed += rows.length;
    else {
      this.counts.rejected += rows.length;
      const nowMs = performance.now();
      if (this.#owedDueAtMs <= nowMs) {
        this.#refusedInARow += 1;
        const pauseMs = backOffMs(this.#refusedInARow, OWED_PAUSE_MIN_MS, OWED_PAUSE_MAX_MS);
        this.#owedDueAtMs = nowMs + (outcome === 'unroutable' ? DELETED_QUEUE_SETTLE_MS : pauseMs);
        if (outcome === 'unroutable') this.#declareSoon(session);
      }
    }
    this.#answers.wake();
    if (outcome !== 'rejected') this.#refusedAtMs = undefined;
    else if (this.name === 'ledger') this.#refused(session);
  }

  #refused(session: BrokerSession): void {
    const nowMs = performance.now();
    this.#refusedAtMs ??= nowMs;
    if (nowMs - this.#refusedAtMs > LEDGER_REFUSALS_MS_MAX)
      session.end(new Error(`the ledger's queue refused everything for ${LEDGER_REFUSALS_MS_MAX} ms`));
  }

  /** The ledger's queue is gone. */
  #declareSoon(session: BrokerSession): void {
    delay(DELETED_QUEUE_SETTLE_MS, undefined, { signal: session.signal })
      .then(() => this.#ask?.())
      .catch(session.end);
  }
}
