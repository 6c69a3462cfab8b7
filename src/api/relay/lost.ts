// Duty "find lost": publishes events again that were confirmed but are not in the ledger although
// they should be by now: events in a deleted or purged queue, or on a broker that lost its disk,
// never arrive. At the start of a term it also checks below the floor that its predecessor noted:
// an unrecorded event there was never published (see raise_outbox_position). A transaction that
// drew its position before the sequence was raised may commit there later, so it checks once more
// when all that were running then have ended.
import { backOffMs } from '../../shared/back-off.ts';
import type { Pool } from '../../shared/database.ts';
import type { Logger } from '../../shared/logging.ts';
import { examine, readUnrecorded, readWriters } from './outbox.ts';
import { lowerProgress } from './progress.ts';
import { PublishTimes } from './publish-times.ts';
import type { Recording } from './recording.ts';
import type { Track } from './track.ts';

const EVERY_MS = 500;
const EXAMINE_ROWS_MAX = 5000;
const PUBLISH_ROWS_MAX = 1000;
const PATIENCE_MAX_MS = 60_000;

/** The range of positions being checked, and how far the check has got. */
interface Pass {
  above: number;
  upTo: number;
  /** Who gets what is found. */
  tracks: readonly Track[];
  atMs: number;
  /** Position of the first lost event; 0 while there is none. */
  firstPosition: number;
  events: number;
}

/** What may be below the floor of the predecessor. */
interface Below {
  floor: number;
  /** Transactions that may still commit there; undefined until the first check. */
  writers: string[] | undefined;
}

export class Lost {
  readonly pauseMs = EVERY_MS;
  readonly #database: Pool;
  readonly #ledger: Track;
  readonly #subscribers: Track;
  readonly #recording: Recording;
  readonly #log: Logger;
  readonly #republishMs: number;
  readonly #times: PublishTimes;
  #below: Below | undefined;
  #pass: Pass | undefined;
  #patienceMs: number;
  /** Passes in a row that began with the same event. */
  #sameInARow = 0;
  #lastPass = { atMs: Number.NEGATIVE_INFINITY, firstPosition: 0 };

  /** @param republishMs age at which a confirmed event that the ledger lacks may be lost. */
  constructor(
    database: Pool,
    {
      ledger,
      subscribers,
      recording,
      log,
      republishMs,
    }: {
      ledger: Track;
      subscribers: Track;
      recording: Recording;
      log: Logger;
      republishMs: number;
    },
  ) {
    this.#database = database;
    this.#ledger = ledger;
    this.#subscribers = subscribers;
    this.#recording = recording;
    this.#log = log;
    this.#republishMs = republishMs;
    this.#patienceMs = republishMs;
    this.#times = new PublishTimes(3 * Math.max(PATIENCE_MAX_MS, republishMs));
    const { floor } = recording;
    if (floor > 0) this.#below = { floor, writers: undefined };
  }

  async round(): Promise<void> {
    const nowMs = performance.now();
    this.#times.note(this.#ledger.publishedUpTo, nowMs);
    this.#pass ??= (await this.#findBelow(nowMs)) ?? (await this.#find(nowMs));
    // Found events are published before more are searched, so memory is bounded. Does not wait for
    // subscribers.
    while (this.#pass && !this.#ledger.isOwing) {
      if (await this.#step(this.#pass)) this.#pass = undefined;
    }
  }

  /** The range below the floor of the predecessor, when it is due. */
  async #findBelow(nowMs: number): Promise<Pass | undefined> {
    const below = this.#below;
    // What the first check has found is given as long to be recorded as any other event.
    if (!below || (below.writers && nowMs - this.#lastPass.atMs < this.#republishMs)) return undefined;
    const isFirst = below.writers === undefined;
    // Before the check: who is over by then is seen by it.
    const now = await readWriters(this.#database);
    below.writers = below.writers?.filter((writer) => now.includes(writer)) ?? now;
    if (below.writers.length === 0) this.#below = undefined;
    else if (!isFirst) return undefined;
    const tracks = [this.#ledger, this.#subscribers];
    return { above: 0, upTo: below.floor, tracks, atMs: nowMs, firstPosition: 0, events: 0 };
  }

  /**
   * The range in which events that should be in the ledger by now may be missing. An event is lost
   * if later events have overtaken it, or if it is old and the queue has nothing left to deliver. A
   * queue that is merely long needs patience, not more messages.
   */
  async #find(nowMs: number): Promise<Pass | undefined> {
    const { floor, recordedUpTo } = this.#recording;
    const old = this.#times.publishedBefore(this.#patienceMs, nowMs);
    // During an alarm, and for a while after it, events are late and not lost.
    if (old <= floor || Math.min(nowMs - this.#lastPass.atMs, this.#ledger.unblockedForMs()) < this.#patienceMs) return;
    const queue = await this.#ledger.askQueue();
    if (!queue) return;
    const overtaken = recordedUpTo > old ? this.#times.publishedBefore(2 * this.#patienceMs, nowMs) : 0;
    const upTo = Math.min(queue.ledgerQueueMessages === 0 ? old : overtaken, this.#ledger.done());
    if (upTo <= floor) return;
    return { above: floor, upTo, tracks: [this.#ledger], atMs: nowMs, firstPosition: 0, events: 0 };
  }

  /** Checks a part of a pass, publishes missing events again, and returns whether that was all. */
  async #step(pass: Pass): Promise<boolean> {
    const { above } = pass;
    const page = await examine(this.#database, { above, below: pass.upTo + 1, limit: EXAMINE_ROWS_MAX });
    const end = page.last ?? pass.upTo;
    const limit = PUBLISH_ROWS_MAX;
    const lost = page.firstUnrecorded === null ? [] : await readUnrecorded(this.#database, { above, upTo: end, limit });
    if (lost[0] !== undefined && pass.tracks.length > 1) await lowerProgress(this.#database, 'subscribers', lost[0]);
    for (const track of lost.length > 0 ? pass.tracks : []) track.owe(lost);
    pass.firstPosition ||= lost[0] ?? 0;
    pass.events += lost.length;
    pass.above = lost.length === limit ? (lost.at(-1) ?? end) : end;
    if (pass.above < pass.upTo && page.last !== null) return false;
    if (pass.events > 0) {
      this.#log.warn(
        { events: pass.events, patienceMs: this.#patienceMs },
        'publishing events again that were confirmed but are not in the ledger',
      );
      this.#sameInARow = pass.firstPosition === this.#lastPass.firstPosition ? this.#sameInARow + 1 : 1;
      const maxMs = Math.max(PATIENCE_MAX_MS, this.#republishMs);
      this.#patienceMs = backOffMs(this.#sameInARow, this.#republishMs, maxMs);
    }
    this.#lastPass = { atMs: pass.atMs, firstPosition: pass.firstPosition || this.#lastPass.firstPosition };
    return true;
  }
}
