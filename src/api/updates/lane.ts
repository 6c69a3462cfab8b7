// One connection that applies balance updates in batches. A batch is whatever gathered while the last one was under
// way: no timers, so a lone request goes at once and a crowd shares one commit.
//
// Every update gets exactly one result, and the result is never more certain than what is known:
//   - never sent (no connection)                          unavailable: nothing changed; never overloaded then
//   - the server said that the statement was rolled back  each goes again alone, so a bad one hurts only itself
//   - sent, and no answer                                 with a key: sent once more under it, which settles it;
//                                                         without: outcome_unknown
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../../shared/logging.ts';
import type { TracedSpan, Tracing } from '../../shared/tracing.ts';
import type { BalanceUpdate, UpdateResult } from './balance-update.ts';
import { createLaneLink, effectOf, isTransient, refusalOf } from './lane-link.ts';

export interface LaneOptions {
  databaseUrl: string;
  log: Logger;
  batchRowsMax: number;
  queueRowsMax: number;
  /** While the first in a queue has waited longer, no more are taken into it: overloaded, or unavailable without a connection. */
  queueWaitMaxMs: number;
  statementTimeoutMs: number;
  idempotencyKeysKeptMs: number;
  /** Called after a batch that changed a balance was committed. */
  onChange: () => void;
  /** Called after each batch. */
  onBatch: BatchObserver;
  tracing?: Tracing | undefined;
}

/** @param waitedMs of the first update in the batch. */
export type BatchObserver = (updates: number, waitedMs: number, tookMs: number) => void;

/** Who waits for an answer: a client with one update, or one with many at once. */
export type Priority = 'single' | 'bulk';

/** Since the start of the process, except for what waits now. */
export interface LaneCounts {
  /** Updates waiting now. */
  waiting: number;
  batches: number;
  updates: number;
  largestBatch: number;
  /** Sum over batches of how long the first update in it had waited. */
  waitedMs: number;
}

export type Outcomes = Record<string, number>;

export interface Lane {
  /** Never rejects. Updates of one priority keep their order. */
  submit(update: BalanceUpdate, priority: Priority): Promise<UpdateResult>;
  counts(): LaneCounts;
  /** Of all updates answered since the start of the process; a replayed answer counts as `replayed`. */
  outcomes(): Outcomes;
  /** Answers everything that waits, then disconnects. New updates are refused as unavailable. */
  stop(): Promise<void>;
}

interface Job {
  update: BalanceUpdate;
  submittedAtMs: number;
  resolve(result: UpdateResult): void;
}

/** Part of a batch that is kept for bulk updates while there are some. */
const BULK_SHARE_MIN = 0.25;
/** How long keyed updates of unknown outcome wait for the database to come back, to be settled under their key. */
const SETTLE_TIMEOUT_MS = 8000;
const SETTLE_RETRY_MS = 200;
/** Serialization failures and deadlocks of a single update; neither is expected at READ COMMITTED in sorted order. */
const ROLLBACK_RETRIES = 3;

export function createLane(options: LaneOptions): Lane {
  const { log, batchRowsMax, queueRowsMax, queueWaitMaxMs, onChange, onBatch, tracing } = options;
  const { idempotencyKeysKeptMs, statementTimeoutMs } = options;
  // Two queues, so that a client with thousands of updates does not put itself before all the others.
  const queues: Record<Priority, Job[]> = { single: [], bulk: [] };
  const counts = { batches: 0, updates: 0, largestBatch: 0, waitedMs: 0 };
  const outcomes: Outcomes = {};
  const count = (outcome: string, updates = 1) => {
    outcomes[outcome] = (outcomes[outcome] ?? 0) + updates;
  };
  let working: Promise<void> | undefined;
  let stopped = false;
  const link = createLaneLink(options);

  /** Singles first, and the rest of the batch for bulk, which always gets a part. */
  function takeBatch(): { batch: Job[]; waitedMs: number } {
    const bulkShare = queues.bulk.length > 0 ? Math.ceil(batchRowsMax * BULK_SHARE_MIN) : 0;
    const singles = take(queues, 'single', Math.max(1, batchRowsMax - bulkShare));
    const batch = singles.concat(take(queues, 'bulk', batchRowsMax - singles.length));
    counts.batches += 1;
    counts.updates += batch.length;
    counts.largestBatch = Math.max(counts.largestBatch, batch.length);
    const waitedMs = performance.now() - (batch[0]?.submittedAtMs ?? 0);
    counts.waitedMs += waitedMs;
    return { batch, waitedMs };
  }

  async function work(): Promise<void> {
    let answerLast = () => {};
    while (queues.single.length + queues.bulk.length > 0) {
      const { batch, waitedMs } = takeBatch();
      const startedAtMs = performance.now();
      const span = tracing && traceBatch(tracing, batch);
      const applied = apply(batch, span);
      answerLast(); // while PostgreSQL is at work on the next batch
      answerLast = () => {};
      try {
        answerLast = await applied;
      } catch (error) {
        log.error({ err: error }, 'a batch failed in an unforeseen way'); // its answers may be wrong by now: admit it
        answerAll(batch, 'outcome_unknown');
      }
      span?.end();
      onBatch(batch.length, waitedMs, performance.now() - startedAtMs);
    }
    working = undefined;
    answerLast();
  }

  /** Returns what gives the answers, where there is time for the next statement before them. */
  async function apply(batch: Job[], span: TracedSpan | undefined): Promise<() => void> {
    if (!(await link.ready())) {
      span?.fail('unavailable');
      // With all that gathered meanwhile: another attempt may take as long, and would end no better.
      answerAll(batch.concat(takeAll(queues)), 'unavailable');
      return () => {};
    }
    try {
      const results = await link.send(updatesOf(batch));
      return () => answer(batch, results);
    } catch (error) {
      const effect = effectOf(error);
      span?.fail(effect);
      log.warn({ err: error, effect, updates: batch.length }, 'a batch of balance updates failed');
      if (effect === 'rolled back') await applyEach(batch);
      else if (effect === 'refused') refuse(batch, error);
      else await settle(batch);
      return () => {};
    }
  }

  /** After a rollback that one update caused: each alone, so that only the culprit fails. */
  async function applyEach(batch: Job[]): Promise<void> {
    for (const job of batch) {
      for (let attempt = 1; ; attempt += 1) {
        if (!(await link.ready())) {
          answerAll([job], 'unavailable');
          break;
        }
        try {
          answer([job], await link.send([job.update]));
          break;
        } catch (error) {
          const effect = effectOf(error);
          if (effect === 'rolled back' && isTransient(error) && attempt < ROLLBACK_RETRIES) continue;
          if (effect === 'unknown') await settle([job]);
          else if (effect === 'refused') refuse([job], error);
          else answerAll([job], 'internal');
          break;
        }
      }
    }
  }

  /** The connection goes too: it may be bound to a server that was demoted, or to a statement that is gone. */
  function refuse(batch: Job[], error: unknown): void {
    link.discard();
    answerAll(batch, refusalOf(error));
  }

  /** The outcome is unknown: a key finds it out, without one nothing safe can be done. */
  async function settle(batch: Job[]): Promise<void> {
    link.discard();
    answerAll(
      batch.filter((job) => job.update.idempotencyKey === null),
      'outcome_unknown',
    );
    const keyed = batch.filter((job) => job.update.idempotencyKey !== null);
    if (keyed.length === 0) return;
    const deadline = performance.now() + SETTLE_TIMEOUT_MS;
    while (!(await link.ready())) {
      if (performance.now() > deadline) return answerAll(keyed, 'outcome_unknown');
      await delay(SETTLE_RETRY_MS);
    }
    // After its key has gone it would be applied twice, and a statement may wait its whole time before it looks for the key.
    const firstAtMs = Math.min(...keyed.map(({ submittedAtMs }) => submittedAtMs));
    if (performance.now() + statementTimeoutMs >= firstAtMs + idempotencyKeysKeptMs) {
      return answerAll(keyed, 'outcome_unknown');
    }
    try {
      answer(keyed, await link.send(updatesOf(keyed)));
    } catch (error) {
      log.error({ err: error, updates: keyed.length }, 'could not settle updates of unknown outcome');
      if (effectOf(error) === 'unknown') link.discard();
      answerAll(keyed, 'outcome_unknown');
    }
  }

  function answer(batch: Job[], results: readonly UpdateResult[]): void {
    let changed = false;
    results.forEach((result, index) => {
      const replayed = 'replayed' in result && result.replayed;
      if (result.outcome === 'applied' && !replayed) changed = true;
      count(replayed ? 'replayed' : result.outcome);
      batch[index]?.resolve(result);
    });
    if (changed) onChange();
  }

  function answerAll(batch: Job[], outcome: 'unavailable' | 'outcome_unknown' | 'internal'): void {
    count(outcome, batch.length);
    for (const job of batch) job.resolve({ outcome });
  }

  function refused(outcome: 'unavailable' | 'overloaded'): Promise<UpdateResult> {
    count(outcome);
    return Promise.resolve({ outcome });
  }

  return {
    submit(update, priority) {
      if (stopped) return refused('unavailable');
      const queue = queues[priority];
      const nowMs = performance.now();
      const firstWaitedMs = nowMs - (queue[0]?.submittedAtMs ?? nowMs);
      if (queue.length >= queueRowsMax || firstWaitedMs > queueWaitMaxMs) {
        return refused(link.isConnected() ? 'overloaded' : 'unavailable');
      }
      return new Promise((resolve) => {
        queue.push({ update, submittedAtMs: nowMs, resolve });
        // At once: the first of a crowd goes alone, the others gather behind it.
        working ??= Promise.resolve().then(work);
      });
    },
    counts: () => ({ waiting: queues.single.length + queues.bulk.length, ...counts }),
    outcomes: () => outcomes,
    async stop() {
      stopped = true;
      await working;
      await link.close();
    },
  };
}

function take(queues: Record<Priority, Job[]>, priority: Priority, limit: number): Job[] {
  const queue = queues[priority];
  if (queue.length <= limit) {
    queues[priority] = [];
    return queue;
  }
  queues[priority] = queue.slice(limit);
  return queue.slice(0, limit);
}

function takeAll(queues: Record<Priority, Job[]>): Job[] {
  return take(queues, 'single', Number.POSITIVE_INFINITY).concat(take(queues, 'bulk', Number.POSITIVE_INFINITY));
}

function traceBatch(tracing: Tracing, batch: Job[]): TracedSpan | undefined {
  const contexts = batch.map(({ update }) => update.traceparent);
  return tracing.startSpan('client', 'apply_changes', contexts, {
    'db.system.name': 'postgresql',
    'db.stored_procedure.name': 'apply_changes',
    'db.operation.batch.size': batch.length,
  });
}

function updatesOf(batch: Job[]): BalanceUpdate[] {
  return batch.map((job) => job.update);
}
