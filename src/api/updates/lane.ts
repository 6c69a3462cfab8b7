// Gathers operations into batches for one connection. A batch is whatever gathered while the last
// one was in flight: no timers, so a lone request is sent at once and a crowd shares one commit.
// Every operation gets exactly one result.
import type { Logger } from '../../shared/logging.ts';
import type { TracedSpan, Tracing } from '../../shared/tracing.ts';
import { BatchSender, type SenderOptions } from './batch-sender.ts';
import { type Job, JobQueue } from './job-queue.ts';
import { createLaneLink } from './lane-link.ts';
import type { Operation, OperationResult } from './operation.ts';
import { createResults, type Outcomes, type ResultsOptions } from './results.ts';

export interface LaneOptions extends SenderOptions, ResultsOptions {
  databaseUrl: string;
  log: Logger;
  /** Legs in one statement, unless one operation alone has more. */
  batchRowsMax: number;
  /** Legs that may wait, for each priority. */
  queueRowsMax: number;
  /**
   * Longest wait of a client's first operation, and longest time of the batch in flight. Above it,
   * new operations are refused: as overloaded, or as unavailable if there is no connection.
   */
  queueWaitMaxMs: number;
  /** Whether clients take turns, and none fills a queue alone. */
  isShared: boolean;
  /** Called after each batch. */
  onBatch: BatchObserver;
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
 * Largest number of bulk legs in a batch while single operations arrive, or several clients send
 * bulk. Operations that arrive during a batch wait for it to end, and so do other lanes that need
 * its accounts. Batches of 1,000 would make bulk a seventh faster, and make single operations wait
 * four times as long.
 */
const BULK_BESIDE_SINGLES_MAX = 100;
/** Single operations count as arriving while the last one is no older than this. */
const SINGLES_COME_MS = 1000;

export function createLane(options: LaneOptions): Lane {
  const { log, batchRowsMax, queueRowsMax, queueWaitMaxMs, isShared, declineLimit, onBatch, tracing } = options;
  const clientOf = ({ actor }: Operation) => (isShared ? (actor ?? '') : '');
  // Two queues, so that a client with thousands of operations does not get ahead of all the others.
  const queues: Record<Priority, JobQueue> = { single: new JobQueue(), bulk: new JobQueue() };
  const counts = { batches: 0, legs: 0, largestBatch: 0, waitedMs: 0 };
  let lastSingleAtMs = Number.NEGATIVE_INFINITY;
  /** When the last batch was taken, or when an operation joined empty queues. */
  let heldUpSinceMs = 0;
  let working: Promise<void> | undefined;
  let stopped = false;
  const link = createLaneLink(options);
  const results = createResults(options);
  const sender = new BatchSender(link, results, options);

  const singlesCome = () => performance.now() - lastSingleAtMs < SINGLES_COME_MS;
  const takeAll = () => [...queues.single.take(), ...queues.bulk.take()];

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
    let giveLast = () => {};
    while (queues.single.legs + queues.bulk.legs > 0) {
      const { batch, waitedMs } = takeBatch();
      const startedAtMs = performance.now();
      const span = tracing && traceBatch(tracing, batch);
      const sent = sender.send(batch, span, takeAll);
      giveLast(); // while PostgreSQL is at work on the next batch
      giveLast = () => {};
      try {
        giveLast = await sent;
      } catch (error) {
        // Its results may be wrong by now: report it.
        log.error({ err: error }, 'a batch failed in an unforeseen way');
        results.giveAll(batch, 'outcome_unknown');
      }
      span?.end();
      onBatch(legsOf(batch), waitedMs, performance.now() - startedAtMs);
    }
    working = undefined;
    giveLast();
  }

  /**
   * Refuses the newest operations of the client with the most legs, as long as it has more than
   * this client would then have.
   * @returns whether the queue has room now.
   */
  function makeRoom(queue: JobQueue, client: string, { legs }: Operation): boolean {
    while (queue.legs >= queueRowsMax) {
      const job = queue.pushOut(client, legs.length);
      if (!job) return false;
      results.giveAll([job], 'overloaded');
    }
    return true;
  }

  return {
    submit(operation, priority) {
      if (stopped) return Promise.resolve(results.refused(operation, 'unavailable'));
      const queue = queues[priority];
      const nowMs = performance.now();
      const client = clientOf(operation);
      if (queues.single.legs + queues.bulk.legs === 0) heldUpSinceMs = nowMs;
      const waitedMs = Math.max(queue.waitedMs(client, nowMs), nowMs - heldUpSinceMs);
      if (waitedMs > queueWaitMaxMs || !makeRoom(queue, client, operation)) {
        return Promise.resolve(results.refused(operation, link.isConnected() ? 'overloaded' : 'unavailable'));
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
    outcomes: () => results.outcomes,
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

function legsOf(batch: readonly Job[]): number {
  return batch.reduce((sum, { operation }) => sum + operation.legs.length, 0);
}
