// Sends a batch to PostgreSQL, and gives each operation a result that is never more certain than
// what is known:
//   - Never sent, as there is no connection: unavailable. Nothing changed.
//   - The server said that the statement was rolled back: each is sent alone, so that only a bad
//     one fails.
//   - Sent, and no answer: with a key or a hold id it is sent once more, which settles it; without
//     either, the result is outcome_unknown.
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../../shared/logging.ts';
import { effectOf, isTransient, refusalOf } from '../../shared/sqlstate.ts';
import type { TracedSpan } from '../../shared/tracing.ts';
import type { Job } from './job-queue.ts';
import type { LaneLink } from './lane-link.ts';
import type { Operation } from './operation.ts';
import type { Results } from './results.ts';

/**
 * How long operations of unknown outcome wait for the database to come back, to be settled under
 * their key or hold id.
 */
const SETTLE_TIMEOUT_MS = 8000;
const SETTLE_RETRY_MS = 200;
/**
 * How many times a single operation is sent if serialization failures or deadlocks occur. Neither
 * is expected at READ COMMITTED with locks in sorted order.
 */
const SENDS_MAX = 3;

export interface SenderOptions {
  log: Logger;
  statementTimeoutMs: number;
  idempotencyKeysKeptMs: number;
}

export class BatchSender {
  readonly #link: LaneLink;
  readonly #results: Results;
  readonly #options: SenderOptions;

  constructor(link: LaneLink, results: Results, options: SenderOptions) {
    this.#link = link;
    this.#results = results;
    this.#options = options;
  }

  /**
   * Returns a function that delivers the results, so that the caller can send the next batch first.
   * @param waiting takes the operations that have gathered since. Without a connection they fail
   * along with the batch: another attempt could take as long, and would fail too.
   */
  async send(batch: Job[], span: TracedSpan | undefined, waiting: () => Job[]): Promise<() => void> {
    if (!(await this.#link.ready())) {
      span?.fail('unavailable');
      this.#results.giveAll([...batch, ...waiting()], 'unavailable');
      return () => {};
    }
    try {
      const results = await this.#link.send(operationsOf(batch));
      return () => this.#results.give(batch, results);
    } catch (error) {
      const effect = effectOf(error);
      span?.fail(effect);
      this.#options.log.warn({ err: error, effect, operations: batch.length }, 'a batch of operations failed');
      if (effect === 'rolled back') for (const job of batch) await this.#sendAlone(job);
      else if (effect === 'refused') this.#refuse(batch, error);
      else await this.#settle(batch);
      return () => {};
    }
  }

  /** After a rollback that one operation of the batch caused. */
  async #sendAlone(job: Job): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      if (!(await this.#link.ready())) return this.#results.giveAll([job], 'unavailable');
      try {
        return this.#results.give([job], await this.#link.send([job.operation]));
      } catch (error) {
        const effect = effectOf(error);
        if (effect === 'rolled back' && isTransient(error) && attempt < SENDS_MAX) continue;
        if (effect === 'unknown') return this.#settle([job]);
        if (effect === 'refused') return this.#refuse([job], error);
        return this.#results.giveAll([job], 'internal');
      }
    }
  }

  /**
   * The connection is dropped too: it may lead to a demoted server, or have lost its prepared
   * statement.
   */
  #refuse(batch: Job[], error: unknown): void {
    this.#link.discard();
    this.#results.giveAll(batch, refusalOf(error));
  }

  /**
   * The outcome is unknown. A retry under the key or hold id reveals it; without either, no retry
   * is safe.
   */
  async #settle(batch: Job[]): Promise<void> {
    const { log, statementTimeoutMs, idempotencyKeysKeptMs } = this.#options;
    this.#link.discard();
    this.#results.giveAll(
      batch.filter((job) => !isSettling(job)),
      'outcome_unknown',
    );
    const keyed = batch.filter(isSettling);
    if (keyed.length === 0) return;
    const deadline = performance.now() + SETTLE_TIMEOUT_MS;
    while (!(await this.#link.ready())) {
      if (performance.now() > deadline) return this.#results.giveAll(keyed, 'outcome_unknown');
      await delay(SETTLE_RETRY_MS);
    }
    // If a key has expired, its operation would be applied twice; and a statement may wait its
    // whole timeout before it looks up the key.
    const firstAtMs = Math.min(...keyed.map(({ submittedAtMs }) => submittedAtMs));
    if (performance.now() + statementTimeoutMs >= firstAtMs + idempotencyKeysKeptMs) {
      return this.#results.giveAll(keyed, 'outcome_unknown');
    }
    try {
      this.#results.give(keyed, await this.#link.send(operationsOf(keyed)));
    } catch (error) {
      log.error({ err: error, operations: keyed.length }, 'could not settle operations of unknown outcome');
      if (effectOf(error) === 'unknown') this.#link.discard();
      this.#results.giveAll(keyed, 'outcome_unknown');
    }
  }
}

function operationsOf(batch: readonly Job[]): Operation[] {
  return batch.map((job) => job.operation);
}

/** Whether a retry reveals the outcome: by its key, or by the hold that it made. */
function isSettling({ operation }: Job): boolean {
  return operation.idempotencyKey !== null || operation.kind === 'hold';
}
