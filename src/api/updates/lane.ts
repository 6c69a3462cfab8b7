// One connection that applies operations in batches. A batch is whatever gathered while the last one was in flight: no
// timers, so a lone request goes at once and a crowd shares one commit.
//
// Every operation gets exactly one result, and the result is never more certain than what is known:
//   - never sent (no connection)                          unavailable: nothing changed; never overloaded then
//   - the server said that the statement was rolled back  each goes again alone, so a bad one hurts only itself
//   - sent, and no answer                                 with a key: sent once more under it, which settles it;
//                                                         without: outcome_unknown
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../../shared/logging.ts';
import type { TracedSpan, Tracing } from '../../shared/tracing.ts';
import { createLaneLink, effectOf, isTransient, refusalOf } from './lane-link.ts';
import type { Kind, Operation, OperationResult } from './operation.ts';

export interface LaneOptions {
  databaseUrl: string;
  log: Logger;
  /** Legs in one statement, but for an operation that has more by itself. */
  batchRowsMax: number;
  /** Legs that wait. */
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

/** @param waitedMs of the first operation in the batch. */
export type BatchObserver = (legs: number, waitedMs: number, tookMs: number) => void;

/** Who waits for an answer: a client with one operation, or one with many at once. */
export type Priority = 'single' | 'bulk';

/** Since the start of the process, except for what waits now. */
export interface LaneCounts {
  /** Legs waiting now. */
  waiting: number;
  batches: number;
  legs: number;
  largestBatch: number;
  /** Sum over batches of how long the first operation in it had waited. */
  waitedMs: number;
}

/** By operation and outcome, such as `transfer applied`; an answer that was given again is `replayed`. */
export type Outcomes = Record<string, number>;

/** What an operation is counted as. */
export const COUNTED_AS = {
  update: 'update',
  atomic: 'atomic',
  transfer: 'transfer',
  reversal: 'reversal',
  reversal_rest: 'reversal',
  hold: 'hold',
  capture: 'capture',
  capture_final: 'capture',
  release: 'release',
  hold_change: 'hold_change',
} as const satisfies Record<Kind, string>;

export interface Lane {
  /** Never rejects. Operations of one priority keep their order. */
  submit(operation: Operation, priority: Priority): Promise<OperationResult>;
  counts(): LaneCounts;
  /** Of all operations answered since the start of the process. */
  outcomes(): Outcomes;
  /** Answers everything that waits, then disconnects. New operations are refused as unavailable. */
  stop(): Promise<void>;
}

interface Job {
  operation: Operation;
  submittedAtMs: number;
  resolve(result: OperationResult): void;
}

/** Part of a batch that is kept for bulk requests while there are some. */
const BULK_SHARE_MIN = 0.25;
/**
 * Legs of bulk requests in a batch while single operations come: those that arrive during it wait for its end, as do other lanes for
 * its accounts. Batches of 1,000 save bulk a seventh of its time, and cost them four times as much.
 */
const BULK_BESIDE_SINGLES_MAX = 100;
/** Single operations come, where the last one is no older. */
const SINGLES_COME_MS = 1000;
/** How long operations of unknown outcome wait for the database to come back, to be settled under their key. */
const SETTLE_TIMEOUT_MS = 8000;
const SETTLE_RETRY_MS = 200;
/** Serialization failures and deadlocks of a single operation; neither is expected at READ COMMITTED in sorted order. */
const ROLLBACK_RETRIES = 3;

export function createLane(options: LaneOptions): Lane {
  const { log, batchRowsMax, queueRowsMax, queueWaitMaxMs, onChange, onBatch, tracing } = options;
  const { idempotencyKeysKeptMs, statementTimeoutMs } = options;
  // Two queues, so that a client with thousands of operations does not put itself before all the others.
  const queues: Record<Priority, JobQueue> = { single: new JobQueue(), bulk: new JobQueue() };
  const counts = { batches: 0, legs: 0, largestBatch: 0, waitedMs: 0 };
  const outcomes: Outcomes = {};
  const count = ({ kind }: Operation, outcome: string) => {
    const name = `${COUNTED_AS[kind]} ${outcome}`;
    outcomes[name] = (outcomes[name] ?? 0) + 1;
  };
  let lastSingleAtMs = Number.NEGATIVE_INFINITY;
  let working: Promise<void> | undefined;
  let stopped = false;
  const link = createLaneLink(options);

  /** Singles first, and the rest of the batch for bulk, which always gets a part. */
  function takeBatch(): { batch: Job[]; waitedMs: number } {
    const nowMs = performance.now();
    const bulkShare = queues.bulk.legs > 0 ? Math.ceil(batchRowsMax * BULK_SHARE_MIN) : 0;
    const singles = queues.single.take(Math.max(1, batchRowsMax - bulkShare));
    const bulkMax = nowMs - lastSingleAtMs < SINGLES_COME_MS ? BULK_BESIDE_SINGLES_MAX : batchRowsMax;
    const batch = singles.concat(queues.bulk.take(Math.min(bulkMax, batchRowsMax - legsOf(singles))));
    const legs = legsOf(batch);
    counts.batches += 1;
    counts.legs += legs;
    counts.largestBatch = Math.max(counts.largestBatch, legs);
    const waitedMs = nowMs - (batch[0]?.submittedAtMs ?? 0);
    counts.waitedMs += waitedMs;
    return { batch, waitedMs };
  }

  async function work(): Promise<void> {
    let answerLast = () => {};
    while (queues.single.legs + queues.bulk.legs > 0) {
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
      onBatch(legsOf(batch), waitedMs, performance.now() - startedAtMs);
    }
    working = undefined;
    answerLast();
  }

  /** Returns what gives the answers, where there is time for the next statement before them. */
  async function apply(batch: Job[], span: TracedSpan | undefined): Promise<() => void> {
    if (!(await link.ready())) {
      span?.fail('unavailable');
      // With all that gathered meanwhile: another attempt may take as long, and would end no better.
      answerAll([...batch, ...queues.single.take(), ...queues.bulk.take()], 'unavailable');
      return () => {};
    }
    try {
      const results = await link.send(operationsOf(batch));
      return () => answer(batch, results);
    } catch (error) {
      const effect = effectOf(error);
      span?.fail(effect);
      log.warn({ err: error, effect, operations: batch.length }, 'a batch of operations failed');
      if (effect === 'rolled back') await applyEach(batch);
      else if (effect === 'refused') refuse(batch, error);
      else await settle(batch);
      return () => {};
    }
  }

  /** After a rollback that one operation caused: each alone, so that only the culprit fails. */
  async function applyEach(batch: Job[]): Promise<void> {
    for (const job of batch) {
      for (let attempt = 1; ; attempt += 1) {
        if (!(await link.ready())) {
          answerAll([job], 'unavailable');
          break;
        }
        try {
          answer([job], await link.send([job.operation]));
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
      batch.filter((job) => !isSettling(job)),
      'outcome_unknown',
    );
    const keyed = batch.filter(isSettling);
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
      answer(keyed, await link.send(operationsOf(keyed)));
    } catch (error) {
      log.error({ err: error, operations: keyed.length }, 'could not settle operations of unknown outcome');
      if (effectOf(error) === 'unknown') link.discard();
      answerAll(keyed, 'outcome_unknown');
    }
  }

  function answer(batch: Job[], results: readonly OperationResult[]): void {
    let changed = false;
    results.forEach((result, index) => {
      const replayed = 'replayed' in result && result.replayed;
      if (result.outcome === 'applied' && !replayed) changed = true;
      const job = batch[index] as Job;
      count(job.operation, replayed ? 'replayed' : result.outcome);
      job.resolve(result);
    });
    if (changed) onChange();
  }

  function answerAll(batch: Job[], outcome: 'unavailable' | 'outcome_unknown' | 'internal'): void {
    for (const job of batch) {
      count(job.operation, outcome);
      job.resolve({ outcome });
    }
  }

  function refused(operation: Operation, outcome: 'unavailable' | 'overloaded'): Promise<OperationResult> {
    count(operation, outcome);
    return Promise.resolve({ outcome });
  }

  return {
    submit(operation, priority) {
      if (stopped) return refused(operation, 'unavailable');
      const queue = queues[priority];
      const nowMs = performance.now();
      const firstWaitedMs = nowMs - (queue.first?.submittedAtMs ?? nowMs);
      if (queue.legs >= queueRowsMax || firstWaitedMs > queueWaitMaxMs) {
        return refused(operation, link.isConnected() ? 'overloaded' : 'unavailable');
      }
      if (priority === 'single') lastSingleAtMs = nowMs;
      return new Promise((resolve) => {
        queue.push({ operation, submittedAtMs: nowMs, resolve });
        // At once: the first of a crowd goes alone, the others gather behind it.
        working ??= Promise.resolve().then(work);
      });
    },
    counts: () => ({ waiting: queues.single.legs + queues.bulk.legs, ...counts }),
    outcomes: () => outcomes,
    async stop() {
      stopped = true;
      await working;
      await link.close();
    },
  };
}

/** First in, first out, by legs. */
class JobQueue {
  legs = 0;
  #jobs: Job[] = [];

  get first(): Job | undefined {
    return this.#jobs[0];
  }

  push(job: Job): void {
    this.#jobs.push(job);
    this.legs += job.operation.legs.length;
  }

  /** As many as have at most so many legs together, or the first one alone. */
  take(legsMax = Number.POSITIVE_INFINITY): Job[] {
    const jobs = this.#jobs;
    if (legsMax <= 0) return [];
    if (this.legs <= legsMax) {
      this.#jobs = [];
      this.legs = 0;
      return jobs;
    }
    let count = 0;
    let legs = 0;
    for (const { operation } of jobs) {
      if (count > 0 && legs + operation.legs.length > legsMax) break;
      count += 1;
      legs += operation.legs.length;
    }
    this.#jobs = jobs.slice(count);
    this.legs -= legs;
    return jobs.slice(0, count);
  }
}

function traceBatch(tracing: Tracing, batch: Job[]): TracedSpan | undefined {
  const contexts = batch.map(({ operation }) => operation.traceparent);
  return tracing.startSpan('client', 'apply_changes', contexts, {
    'db.system.name': 'postgresql',
    'db.stored_procedure.name': 'apply_changes',
    'db.operation.batch.size': batch.length,
  });
}

function operationsOf(batch: readonly Job[]): Operation[] {
  return batch.map((job) => job.operation);
}

function legsOf(batch: readonly Job[]): number {
  return batch.reduce((sum, { operation }) => sum + operation.legs.length, 0);
}

/** Whether sending it again finds out what became of it: by its key, or by the hold that it made. */
function isSettling({ operation }: Job): boolean {
  return operation.idempotencyKey !== null || operation.kind === 'hold';
}
