// Duty "patience": watches the subscribers' track while one of their queues accepts nothing.
// Reports since when and for which positions they wait. If the management plugin is configured,
// finds the queue and puts it aside after a while. Passes over events that have waited too long or
// take too much space, after noting them in the table missed. The ledger never waits for any of
// this.

import { readBoundQueues } from '../../shared/broker-management.ts';
import type { Pool } from '../../shared/database.ts';
import type { Logger } from '../../shared/logging.ts';
import { isRouted } from '../../shared/topic.ts';
import { noteMissedRange, noteQueuePutAside } from './missed.ts';
import { readOutbox } from './outbox.ts';
import { bytesBetween, readPartitions } from './partitions.ts';
import { PublishTimes } from './publish-times.ts';
import type { Recording } from './recording.ts';
import { findSickQueues, type SickQueue, unbind } from './sick-queues.ts';
import type { Track } from './track.ts';

const EVERY_MS = 500;
const FROZEN_MS = 5000;
/** A change of a queue's leader takes less. */
const UNNOTICED_MS = 3000;
const LOOK_EVERY_MS = 8000;
const REPORT_EVERY_MS = 60_000;
/** What one statement passes over. */
const PASS_POSITIONS_MAX = 100_000;

/** Of subscribers that wait. */
export interface Standstill {
  /** Of performance.now(). */
  sinceMs: number;
  /** They wait for events from this position on. */
  firstPosition: number;
  /** Up to this position, what they lack is on its way to the ledger. */
  lastPosition: number;
  /** Empty while they are unknown. */
  queues: string[];
}

export interface PatienceOptions {
  ledger: Track;
  subscribers: Track;
  recording: Recording;
  log: Logger;
  exchange: string;
  amqpUrl: string;
  amqpManagementUrl?: string | undefined;
  /** How long a queue may take nothing until it is put aside. */
  subscriberAsideMs: number;
  subscriberPatienceMs: number;
  subscriberPatienceBytes: number;
  signal: AbortSignal;
}

export class Patience {
  readonly pauseMs = EVERY_MS;
  /** Positions passed over since the term began. */
  passedOver = 0;
  putAside = 0;
  readonly #database: Pool;
  readonly #options: PatienceOptions;
  readonly #times: PublishTimes;
  #done: number;
  #standstill: Standstill | undefined;
  #reportedAtMs = Number.NEGATIVE_INFINITY;
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #roundAtMs = performance.now();
  #looking: Promise<void> | undefined;

  constructor(database: Pool, options: PatienceOptions) {
    this.#database = database;
    this.#options = options;
    // A mark is good a little after its time.
    this.#times = new PublishTimes(options.subscriberPatienceMs + 2 * EVERY_MS);
    this.#done = options.subscribers.done();
  }

  /** Undefined while nothing is amiss. */
  get standstill(): Standstill | undefined {
    const { sinceMs = Number.POSITIVE_INFINITY } = this.#standstill ?? {};
    return performance.now() - sinceMs >= UNNOTICED_MS ? this.#standstill : undefined;
  }

  async round(): Promise<void> {
    const { ledger, subscribers, recording, subscriberPatienceMs } = this.#options;
    const nowMs = performance.now();
    // The process was frozen: confirms may be waiting unread, and another relay may be active.
    const isThawed = nowMs - this.#roundAtMs > FROZEN_MS;
    this.#roundAtMs = nowMs;
    if (isThawed) this.#standstill = undefined;
    this.#times.note(recording.floor, nowMs);
    const done = subscribers.done();
    // Not while the broker itself is down or blocked: then the ledger waits as well.
    // Tiny steps count as waiting.
    const goesOn = done > this.#done && !(this.#standstill && subscribers.isOwing);
    const published = ledger.done();
    const isStuck = !goesOn && done < published && ledger.isServing && !subscribers.isBlocked;
    this.#done = done;
    if (!isStuck) return this.#goesOn(nowMs);
    this.#standstill ??= { sinceMs: nowMs, firstPosition: done + 1, lastPosition: published, queues: [] };
    Object.assign(this.#standstill, { firstPosition: done + 1, lastPosition: published });
    const waitedMs = nowMs - this.#standstill.sinceMs;
    if (waitedMs < UNNOTICED_MS) return;
    this.#report(nowMs, waitedMs);
    this.#look(nowMs);
    const old = waitedMs < subscriberPatienceMs ? 0 : this.#times.publishedBefore(subscriberPatienceMs, nowMs);
    const upTo = Math.max(old, await this.#tooLarge(done, recording.floor));
    if (upTo > done && !this.#options.signal.aborted) await this.#passOver(done, Math.min(upTo, recording.floor));
  }

  #goesOn(nowMs: number): void {
    if (!this.#standstill) return;
    const waitedMs = Math.round(nowMs - this.#standstill.sinceMs);
    if (waitedMs >= UNNOTICED_MS) this.#options.log.info({ waitedMs }, 'subscribers get events again');
    this.#standstill = undefined;
    this.#reportedAtMs = Number.NEGATIVE_INFINITY;
  }

  #report(nowMs: number, waitedMs: number): void {
    if (nowMs - this.#reportedAtMs < REPORT_EVERY_MS) return;
    this.#reportedAtMs = nowMs;
    const { firstPosition, lastPosition, queues } = this.#standstill as Standstill;
    this.#options.log.error(
      { waitedMs: Math.round(waitedMs), firstPosition, lastPosition, queues },
      'subscribers wait: a queue bound to the exchange accepts no events',
    );
  }

  /** Finds the queues that accept nothing, concurrently with the other rounds. */
  #look(nowMs: number): void {
    const { amqpManagementUrl, log } = this.#options;
    if (!amqpManagementUrl || this.#looking || nowMs - this.#lookedAtMs < LOOK_EVERY_MS) return;
    this.#lookedAtMs = nowMs;
    this.#looking = this.#lookForQueues(amqpManagementUrl)
      .catch((error: unknown) => log.warn({ err: error }, 'finding the queue that accepts no events failed'))
      .finally(() => {
        this.#looking = undefined;
      });
  }

  async #lookForQueues(managementUrl: string): Promise<void> {
    const { subscribers, amqpUrl, exchange, log, signal, subscriberAsideMs } = this.#options;
    const standstill = this.#standstill as Standstill;
    const after = standstill.firstPosition - 1;
    const [row] = await readOutbox(this.#database, after, [], 1);
    if (!row) return;
    const bound = await readBoundQueues({ managementUrl, amqpUrl }, exchange);
    const concerned = bound.filter(({ routingKeys }) => routingKeys.some((key) => isRouted(key, row.type)));
    const sick = await findSickQueues(amqpUrl, concerned, row, signal);
    const names = sick.map(({ name, problem }) => `${name} ${problem}`);
    if (names.join() !== standstill.queues.join()) {
      standstill.queues = names;
      this.#reportedAtMs = Number.NEGATIVE_INFINITY;
    }
    if (this.#standstill !== standstill || performance.now() - standstill.sinceMs < subscriberAsideMs) return;
    for (const queue of sick) {
      if (signal.aborted) return;
      await this.#put(queue, after + 1).catch((error: unknown) => {
        log.error({ err: error, queue: queue.name }, 'putting a queue aside failed');
      });
    }
    // What it has in flight stays stuck on its connection.
    if (sick.length > 0) subscribers.reconnect(new Error('a queue was put aside'));
    else log.warn({ exchange }, 'each queue on its own accepts events: another exchange may be bound');
  }

  async #put(queue: SickQueue, fromPosition: number): Promise<void> {
    const { amqpUrl, exchange, log } = this.#options;
    await noteQueuePutAside(this.#database, queue, fromPosition);
    await unbind(amqpUrl, exchange, queue);
    // Noted once more: it may have been resumed, and the first note marked as delivered, before the
    // bindings were removed.
    await noteQueuePutAside(this.#database, queue, fromPosition);
    this.putAside += 1;
    const { name, problem } = queue;
    log.error(
      { queue: name, problem, fromPosition },
      'put a queue aside: it receives no events until `highload-balance subscribers resume` is run for it',
    );
  }

  /**
   * Up to where subscribers may not keep the outbox any more; 0 while what they alone keep is small.
   * What a backup keeps, or the ledger after an outage, may be much larger.
   */
  async #tooLarge(done: number, recorded: number): Promise<number> {
    const { open, left } = await readPartitions(this.#database);
    const bytes = bytesBetween(open, done, recorded) + bytesBetween(left, done, recorded);
    if (bytes < this.#options.subscriberPatienceBytes) return 0;
    return left.last !== null && left.last > done ? left.last : (open.last ?? 0);
  }

  async #passOver(done: number, upTo: number): Promise<void> {
    const { subscribers, log } = this.#options;
    const end = Math.min(upTo, done + PASS_POSITIONS_MAX);
    await noteMissedRange(this.#database, done, end);
    subscribers.passOver(end);
    this.#done = subscribers.done();
    this.passedOver += end - done;
    log.error(
      { firstPosition: done + 1, lastPosition: end },
      'subscribers waited too long: these events were passed over; replay delivers them (see the table missed)',
    );
  }
}
