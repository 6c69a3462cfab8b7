// One connection that applies operations in batches. A batch is whatever gathered while the last
// one was in flight: no timers, so a lone request is sent at once and a crowd shares one commit.
//
// Every operation gets exactly one result, and the result is never more certain than what is known:
//   - Never sent, as there is no connection: unavailable, and never overloaded. Nothing changed.
//   - The server said that the statement was rolled back: each is retried alone, so that only a bad
//     one fails.
//   - Sent, and no answer: with a key it is sent once more under it, which settles it; without one
//     it is outcome_unknown.
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../../shared/logging.ts';
import { effectOf, isTransient, refusalOf } from '../../shared/sqlstate.ts';
import type { TracedSpan, Tracing } from '../../shared/tracing.ts';
import type { AnswersMemory } from './answers-memory.ts';
import type { DeclineLimit } from './decline-limit.ts';
import { type Job, JobQueue } from './job-queue.ts';
import { createLaneLink } from './lane-link.ts';
import type { Kind, Leg, Operation, OperationResult } from './operation.ts';

export interface LaneOptions {
  databaseUrl: string;
  log: Logger;
  /** Legs in one statement, unless one operation alone has more. */
  batchRowsMax: number;
  /** Legs that may wait, for each priority. */
  queueRowsMax: number;
  /**
   * While the first operation of a client has waited longer, no more are accepted: overloaded, or
   * unavailable without a connection.
   */
  queueWaitMaxMs: number;
  /** Whether clients take turns, and none fills a queue alone. */
  isShared: boolean;
  /** One for all lanes. */
  declineLimit: DeclineLimit;
  statementTimeoutMs: number;
  idempotencyKeysKeptMs: number;
  /** Called after a batch that changed a balance was committed. */
  onChange: () => void;
  /** Called after each batch. */
  onBatch: BatchObserver;
  /** Receives each change that is answered. */
  answers: AnswersMemory;
  tracing?: Tracing | undefined;
}

/** @param waitedMs of the first operation in the batch. */
export type BatchObserver = (legs: number, waitedMs: number, tookMs: number) => void;

/** What waits for an answer: a single operation, or a bulk request. */
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

/** By operation and outcome, such as `transfer applied`; a repeated answer is `replayed`. */
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
  /** Never rejects. Operations of one client and priority keep their order. */
  submit(operation: Operation, priority: Priority): Promise<OperationResult>;
  /** Legs of a client's bulk requests that wait, and how many clients have some. */
  bulkWaiting(client: string): { legs: number; clients: number };
  /** Whether single operations came within the last second. */
  singlesCome(): boolean;
  counts(): LaneCounts;
  /**
   * Why it cannot apply anything now, in a few words; undefined if it can. Connects if it is not
   * connected.
   */
  problem(): Promise<string | undefined>;
  /** Of all operations answered since the start of the process. */
  outcomes(): Outcomes;
  /** Answers everything that waits, then disconnects. New operations are refused as unavailable. */
  stop(): Promise<void>;
}

/** Part of a batch that is kept for bulk requests while there are some. */
const BULK_SHARE_MIN = 0.25;
/**
 * Legs of bulk requests in a batch while single operations arrive, or bulk of several clients:
 * operations that arrive during a batch wait for its end, and so do other lanes that need its
 * accounts. Batches of 1,000 would save bulk a seventh of its time, and make single operations wait
 * four times as long.
 */
const BULK_BESIDE_SINGLES_MAX = 100;
/** Single operations count as arriving while the last one is no older than this. */
const SINGLES_COME_MS = 1000;
/**
 * How long operations of unknown outcome wait for the database to come back, to be settled under
 * their key.
 */
const SETTLE_TIMEOUT_MS = 8000;
const SETTLE_RETRY_MS = 200;
/**
 * How often a single operation is sent in case of serialization failures and deadlocks; neither is
 * expected at READ COMMITTED in sorted order.
 */
const ROLLBACK_RETRIES = 3;

export function createLane(options: LaneOptions): Lane {
  const { log, batchRowsMax, queueRowsMax, queueWaitMaxMs, isShared, onChange, onBatch, answers, tracing } = options;
  const { idempotencyKeysKeptMs, statementTimeoutMs, declineLimit } = options;
  const clientOf = ({ actor }: Operation) => (isShared ? (actor ?? '') : '');
  // Two queues, so that a client with thousands of operations does not get ahead of all the others.
  const queues: Record<Priority, JobQueue> = { single: new JobQueue(), bulk: new JobQueue() };
  const counts = { batches: 0, legs: 0, largestBatch: 0, waitedMs: 0 };
  const outcomes: Outcomes = {};
  const count = ({ kind }: Operation, outcome: string) => {
    const name = `${COUNTED_AS[kind]} ${outcome}`;
    outcomes[name] = (outcomes[name] ?? 0) + 1;
  };
  let lastSingleAtMs = Number.NEGATIVE_INFINITY;
  /** Since when the operations that wait have waited for the batch in flight. */
  let heldUpSinceMs = 0;
  let working: Promise<void> | undefined;
  let stopped = false;
  const link = createLaneLink(options);

  const singlesCome = () => performance.now() - lastSingleAtMs < SINGLES_COME_MS;

  /** Singles first, and the rest of the batch for bulk, which always gets a part. */
  function takeBatch(): { batch: Job[]; waitedMs: number } {
    const nowMs = performance.now();
    const bulkShare = queues.bulk.legs > 0 ? Math.ceil(batchRowsMax * BULK_SHARE_MIN) : 0;
    const singles = queues.single.take(Math.max(1, batchRowsMax - bulkShare));
    const bulkMax = singlesCome() || queues.bulk.clients > 1 ? BULK_BESIDE_SINGLES_MAX : batchRowsMax;
    const batch = singles.concat(queues.bulk.take(Math.min(bulkMax, batchRowsMax - legsOf(singles))));
    const legs = legsOf(batch);
    counts.batches += 1;
    counts.legs += legs;
    counts.largestBatch = Math.max(counts.largestBatch, legs);
    const waitedMs = nowMs - (batch[0]?.submittedAtMs ?? 0);
    counts.waitedMs += waitedMs;
    heldUpSinceMs = nowMs;
    for (const { operation } of batch) {
      if (declineLimit.isSpent(operation.actor ?? '')) operation.isDeclineForgotten = true;
    }
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
        log.error({ err: error }, 'a batch failed in an unforeseen way'); // its answers may be wrong by now: report it
        answerAll(batch, 'outcome_unknown');
      }
      span?.end();
      onBatch(legsOf(batch), waitedMs, performance.now() - startedAtMs);
    }
    working = undefined;
    answerLast();
  }

  /**
   * Returns a function that gives the answers, so that the next statement can be sent before them.
   */
  async function apply(batch: Job[], span: TracedSpan | undefined): Promise<() => void> {
    if (!(await link.ready())) {
      span?.fail('unavailable');
      // Along with everything that gathered meanwhile: another attempt may take as long and would
      // fail too.
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

  /**
   * After a rollback that one operation caused: each is sent alone, so that only the culprit fails.
   */
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

  /**
   * The connection is dropped too: it may lead to a demoted server, or have lost its prepared
   * statement.
   */
  function refuse(batch: Job[], error: unknown): void {
    link.discard();
    answerAll(batch, refusalOf(error));
  }

  /** The outcome is unknown: a retry with the key reveals it; without a key, no retry is safe. */
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
    // If a key has expired, its operation would be applied twice; and a statement may wait its
    // whole timeout before it looks up the key.
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
      const job = batch[index] as Job;
      if (result.outcome === 'applied' && !replayed) {
        changed = true;
        result.legs.forEach((leg, number) => {
          if (leg) answers.note((job.operation.legs[number] as Leg).accountId, leg);
        });
      }
      if ('found' in result && !replayed && job.operation.idempotencyKey !== null) {
        declineLimit.count(job.operation.actor ?? '');
      }
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

  /**
   * Clients that have more than this one would then have give some up. @returns whether there is
   * room in the queue now.
   */
  function makeRoom(queue: JobQueue, client: string, { legs }: Operation): boolean {
    while (queue.legs >= queueRowsMax) {
      const job = queue.pushOut(client, legs.length);
      if (!job) return false;
      void refused(job.operation, 'overloaded').then(job.resolve);
    }
    return true;
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
      const client = clientOf(operation);
      if (queues.single.legs + queues.bulk.legs === 0) heldUpSinceMs = nowMs;
      const waitedMs = Math.max(queue.waitedMs(client, nowMs), nowMs - heldUpSinceMs);
      if (waitedMs > queueWaitMaxMs || !makeRoom(queue, client, operation)) {
        return refused(operation, link.isConnected() ? 'overloaded' : 'unavailable');
      }
      if (priority === 'single') lastSingleAtMs = nowMs;
      return new Promise((resolve) => {
        queue.push(client, { operation, submittedAtMs: nowMs, resolve });
        // At once: the first of a crowd is sent alone, the others gather after it.
        working ??= Promise.resolve().then(work);
      });
    },
    singlesCome,
    bulkWaiting: (client) => ({ legs: queues.bulk.legsOf(client), clients: queues.bulk.clients }),
    counts: () => ({ waiting: queues.single.legs + queues.bulk.legs, ...counts }),
    problem: () => link.problem(),
    outcomes: () => outcomes,
    async stop() {
      stopped = true;
      await working;
      await link.close();
    },
  };
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

/** Whether a retry reveals the outcome: by its key, or by the hold that it made. */
function isSettling({ operation }: Job): boolean {
  return operation.idempotencyKey !== null || operation.kind === 'hold';
}
