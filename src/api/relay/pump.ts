// One term of the active relay. Two loops over the outbox:
//   publish   reads what lies behind the cursor and publishes it, many in flight;
//   record    moves the floor, up to which everything is confirmed *and* recorded in the ledger, and truncates what
//             lies below it; tries rejected events again; and publishes again what the ledger still lacks although it
//             was confirmed long ago: a deleted or purged ledger queue, or a broker that lost its disk, confirms what
//             then never arrives.
// All state is here and bounded; a new term starts from the floor that the last one noted.
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { answered, type BrokerSession } from '../../shared/broker.ts';
import type { Logger } from '../../shared/logging.ts';
import { DELETED_QUEUE_SETTLE_MS, declareTopology, type Topology } from '../../shared/topology.ts';
import type { Tracing } from '../../shared/tracing.ts';
import {
  examine,
  noteProgress,
  type OutboxRow,
  readOutbox,
  readUnrecorded,
  readWriters,
  startPosition,
  truncateRecorded,
} from './outbox.ts';
import { OutboxCursor } from './outbox-cursor.ts';
import { PublishTimes } from './publish-times.ts';
import { createPublisher, type PublishOutcome } from './publisher.ts';
import { Rejections } from './rejections.ts';

const READ_ROWS_MAX = 1000;
const EXAMINE_ROWS_MAX = 5000;
const EXAMINE_PAUSE_MIN_MS = 20;
const EXAMINE_PAUSE_MAX_MS = 500;
/** After a failover, what was done since the last note is published again. */
const NOTE_EVERY_MS = 250;
const TRUNCATE_EVERY_MS = 500;
/** Each attempt can hold up updates for the lock's time limit: for less than a hundredth of this. */
const TRUNCATE_PAUSE_MAX_MS = 5000;
/** After a page that was not full, so that what comes in the meantime shares a read, and messages share a commit of the worker. */
const READ_PAUSE_MS = 25;
/** A late row is waited for this often: its transaction is committing right now. */
const GAP_PAUSE_MS = 5;
/** With more gaps nothing further is read until some are closed; each costs an index probe a page. */
const GAPS_MAX = 10_000;
const LOSS_CHECK_EVERY_MS = 500;
const PATIENCE_MAX_MS = 60_000;
const CONFIRM_TIMEOUT_MS = 30_000;

/** Since the start of the process, except for what is in flight now. */
export interface RelayCounts {
  /** Published and not yet answered. */
  inFlight: number;
  confirmed: number;
  /** Publishes that some queue refused, or that no queue was bound for. */
  rejected: number;
  /** Rejected events given up after the ledger had them: a subscriber with a full queue missed them. */
  abandoned: number;
  /** Events published again because the ledger lacked them. */
  republished: number;
}

/** What a term of office shares with its relay. */
export interface Term {
  session: BrokerSession;
  /** Aborted when the session or the lock is lost. */
  signal: AbortSignal;
  /** Holds the lock; the connection for reading. */
  reader: pg.Client;
  maintainer: pg.Client;
  counts: RelayCounts;
  blocked(): boolean;
  /** Resolves at the next wake() or after the time. */
  wokenOr(timeoutMs: number): Promise<void>;
}

/** Events to be published again, as far as that has got. */
interface LostPass {
  above: number;
  upTo: number;
  atMs: number;
  /** Of the first event that was lost; 0 while there is none. */
  firstPosition: number;
  events: number;
  /** False while it waits for RabbitMQ. */
  isMoving: boolean;
}

export interface PumpOptions {
  topology: Topology;
  log: Logger;
  relayInFlightMax: number;
  relayIdleMs: number;
  relayRepublishMs: number;
  eventsPerMessageMax: number;
  /** A broker that confirms nothing for so long, and is not blocked, gets a new connection. */
  confirmTimeoutMs?: number;
  tracing?: Tracing | undefined;
}

/** Runs until the term's signal is aborted. Throws when a connection fails. */
export async function runPump(term: Term, options: PumpOptions): Promise<void> {
  const { session, signal, reader, maintainer, counts } = term;
  const { topology, log, relayInFlightMax, relayIdleMs, relayRepublishMs, eventsPerMessageMax } = options;
  const { confirmTimeoutMs = CONFIRM_TIMEOUT_MS } = options;

  const channel = await answered('opening a channel', session.connection.createConfirmChannel());
  channel.on('error', session.end);
  channel.on('close', () => session.end(new Error('channel closed')));
  const declare = () => answered('declaring the queues', declareTopology(channel, topology));
  await declare();
  const publisher = createPublisher(channel, session, topology, options.tracing);

  const noted = await startPosition(reader, signal);
  const cursor = new OutboxCursor(noted);
  const times = new PublishTimes(3 * Math.max(PATIENCE_MAX_MS, relayRepublishMs));
  const rejections = new Rejections();
  /** Published for the first time, not yet answered: the floor stays below them. */
  const unconfirmed = new Set<number>();
  counts.inFlight = 0;
  /** Since when messages are in no queue. */
  let unroutableAtMs: number | undefined;
  let onAnswer = () => {};
  let onConfirm = () => {};

  /** As one message. */
  function publish(rows: readonly OutboxRow[]): void {
    if (signal.aborted) return; // an answer that came late: counted now, it would count in the next term for ever
    counts.inFlight += rows.length;
    publisher.publish(rows, (outcome: PublishOutcome) => {
      counts.inFlight -= rows.length;
      if (outcome === 'unroutable') unroutableAtMs ??= now();
      if (outcome === 'confirmed') counts.confirmed += rows.length;
      else counts.rejected += rows.length;
      for (const row of rows) {
        if (outcome === 'confirmed') rejections.delete(row);
        else rejections.add(row, now());
        unconfirmed.delete(row.position);
      }
      if (outcome === 'confirmed') onConfirm();
      onAnswer();
    });
  }

  function publishAll(rows: readonly OutboxRow[]): void {
    for (let first = 0; first < rows.length; first += eventsPerMessageMax) {
      publish(rows.slice(first, first + eventsPerMessageMax));
    }
  }

  const freeSlots = () => Math.max(0, relayInFlightMax - counts.inFlight);

  /** Resolves when a publish was answered, or after the time. */
  function answeredOr(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      onAnswer = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Resolves when an event was confirmed, so that the ledger soon has it, or after the time. */
  function confirmedOr(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      onConfirm = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  const now = () => performance.now(); // no step of the wall clock stretches an interval

  let blockedAtMs = now();

  async function room(): Promise<number> {
    while (!signal.aborted) {
      if (term.blocked()) blockedAtMs = now(); // what waits out an alarm is not late
      if (Math.min(publisher.oldestWaitMs(), now() - blockedAtMs) > confirmTimeoutMs) {
        session.end(new Error(`RabbitMQ confirmed nothing for ${confirmTimeoutMs} ms`));
      }
      // Half of it free: many small reads cost more than a few large ones.
      if (!term.blocked() && !rejections.full && counts.inFlight <= relayInFlightMax / 2) break;
      await answeredOr(100);
    }
    return Math.min(READ_ROWS_MAX, relayInFlightMax - counts.inFlight);
  }

  async function publishLoop(): Promise<void> {
    while (!signal.aborted) {
      const limit = await room();
      if (signal.aborted) return;
      // In this order: who is gone before the page is read has left the page whatever it will ever leave.
      if (cursor.gaps.length > 0) cursor.noteWriters(await readWriters(reader));
      const behind = cursor.gaps.length > GAPS_MAX ? Number.MAX_SAFE_INTEGER : cursor.behind;
      const page = await readOutbox(reader, behind, cursor.gaps, limit);
      cursor.advance(page, limit);
      for (const row of page) unconfirmed.add(row.position);
      publishAll(page);
      times.note(cursor.behind, now());
      if (page.length === 0) await term.wokenOr(cursor.gaps.length > 0 ? GAP_PAUSE_MS : relayIdleMs);
      if (page.length < limit) await delay(READ_PAUSE_MS, undefined, { signal }).catch(() => {});
    }
  }

  /** Everything up to here is confirmed, or let go, and recorded. */
  let floor = noted;
  /** The highest position that the ledger was seen to hold. */
  let recordedUpTo = noted;

  async function recordLoop(): Promise<void> {
    let above = floor;
    let pauseMs = EXAMINE_PAUSE_MIN_MS;
    let notedAtMs = now();
    let notedFloor = floor;
    let lossCheckedAtMs = now();
    let truncatedAtMs = now();
    let truncatePauseMs = TRUNCATE_EVERY_MS;
    let lostPass: LostPass | undefined;
    while (!signal.aborted) {
      await delay(EXAMINE_PAUSE_MIN_MS, undefined, { signal }).catch(() => {}); // the ledger is a few milliseconds behind
      if (pauseMs > EXAMINE_PAUSE_MIN_MS && !lostPass?.isMoving) await confirmedOr(pauseMs);
      if (signal.aborted) break;
      if (!term.blocked()) {
        for (const row of rejections.takeDue(now(), freeSlots())) publish([row]);
        if (unroutableAtMs !== undefined && now() - unroutableAtMs >= DELETED_QUEUE_SETTLE_MS) {
          unroutableAtMs = undefined;
          await declare();
        }
      }
      let below = Math.min(
        cursor.behind + 1,
        rejections.firstOwed(),
        cursor.gaps[0]?.first ?? Number.POSITIVE_INFINITY,
      );
      for (const position of unconfirmed) below = Math.min(below, position);
      const floorBefore = floor;
      // The ledger may be catching up there while we look further on.
      if (above > floor && (await isRecordedBehind(floor, below))) above = floor;
      const found = await examine(maintainer, { above, below, limit: EXAMINE_ROWS_MAX });
      recordedUpTo = Math.max(recordedUpTo, found.lastRecorded ?? 0);
      if (above === floor) floor = found.firstUnrecorded === null ? (found.last ?? floor) : found.firstUnrecorded - 1;
      // Behind a long stretch that the ledger lacks there may be what it has: on, and then from the floor again.
      above = found.examined === EXAMINE_ROWS_MAX && floor === floorBefore ? (found.last ?? floor) : floor;
      pauseMs = floor > floorBefore ? EXAMINE_PAUSE_MIN_MS : Math.min(EXAMINE_PAUSE_MAX_MS, pauseMs * 2);
      counts.abandoned += rejections.abandon(floor);
      const nowMs = now();
      if (floor > notedFloor && nowMs - notedAtMs >= NOTE_EVERY_MS) {
        await noteProgress(maintainer, floor);
        notedFloor = floor;
        notedAtMs = nowMs;
      }
      if (nowMs - truncatedAtMs >= truncatePauseMs) {
        const done = await truncateRecorded(maintainer, floor);
        truncatePauseMs = done ? TRUNCATE_EVERY_MS : Math.min(TRUNCATE_PAUSE_MAX_MS, truncatePauseMs * 2);
        truncatedAtMs = nowMs;
      }
      if (!lostPass && nowMs - lossCheckedAtMs >= LOSS_CHECK_EVERY_MS) {
        lossCheckedAtMs = nowMs;
        lostPass = await findLost(nowMs);
      }
      if (lostPass && (await republish(lostPass))) lostPass = undefined;
    }
    if (floor > notedFloor) await noteProgress(maintainer, floor).catch(() => {}); // fewer repeats for the next one
  }

  async function isRecordedBehind(position: number, below: number): Promise<boolean> {
    return (await examine(maintainer, { above: position, below, limit: 1 })).lastRecorded !== null;
  }

  let patienceMs = relayRepublishMs;
  let lastPass = { atMs: Number.NEGATIVE_INFINITY, firstPosition: 0 };

  /**
   * Where events that should be in the ledger by now may be missing from it. Lost is what later events have overtaken,
   * or anything old when the queue has nothing left to deliver; a queue that is merely long needs patience, not more
   * messages.
   */
  async function findLost(nowMs: number): Promise<LostPass | undefined> {
    const old = times.publishedBefore(patienceMs, nowMs);
    // During an alarm, and for a while after it, events are late and not lost.
    if (old <= floor || Math.min(nowMs - lastPass.atMs, nowMs - blockedAtMs) < patienceMs) return undefined;
    if (unroutableAtMs !== undefined) return undefined; // the queue is about to be declared again
    const { ledgerQueueMessages } = await declare();
    const overtaken = recordedUpTo > old ? times.publishedBefore(2 * patienceMs, nowMs) : 0;
    const upTo = ledgerQueueMessages === 0 ? old : overtaken;
    if (upTo <= floor) return undefined;
    return { above: floor, upTo, atMs: nowMs, firstPosition: 0, events: 0, isMoving: true };
  }

  /** Publishes again as much of a pass as one look-up finds and as there are free slots for, and says whether it is over. */
  async function republish(pass: LostPass): Promise<boolean> {
    const limit = Math.min(READ_ROWS_MAX, freeSlots());
    pass.isMoving = limit > 0 && !term.blocked();
    if (!pass.isMoving) return false;
    const page = await examine(maintainer, { above: pass.above, below: pass.upTo + 1, limit: EXAMINE_ROWS_MAX });
    const end = page.last ?? pass.upTo;
    const rows =
      page.firstUnrecorded === null ? [] : await readUnrecorded(maintainer, { above: pass.above, upTo: end, limit });
    const lost = rows.filter(({ position }) => !unconfirmed.has(position) && !rejections.has(position));
    publishAll(lost);
    pass.firstPosition ||= lost[0]?.position ?? 0;
    pass.events += lost.length;
    pass.above = rows.length === limit ? (rows.at(-1)?.position ?? end) : end;
    if (pass.above < pass.upTo && page.last !== null) return false;
    if (pass.events > 0) {
      counts.republished += pass.events;
      log.warn(
        { events: pass.events, patienceMs },
        'published events again that were confirmed but are not in the ledger',
      );
      // Patience doubles while it is always the same event.
      patienceMs =
        pass.firstPosition === lastPass.firstPosition ? Math.min(PATIENCE_MAX_MS, patienceMs * 2) : relayRepublishMs;
    }
    lastPass = { atMs: pass.atMs, firstPosition: pass.firstPosition || lastPass.firstPosition };
    return true;
  }

  await Promise.all([publishLoop(), recordLoop()]);
}
