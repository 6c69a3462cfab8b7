// A broker that was killed soon after a quorum queue was declared can come back with a queue that
// answers nothing, or that ends the connection of every consumer, permanently (seen with 3.10 and
// 4.0). A new queue replaces it; the events of the old one are still in the outbox, and are
// published again.
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel } from 'amqplib';
import { answered, BrokerTimeout } from '../shared/broker.ts';
import type { Logger } from '../shared/logging.ts';
import { DELETED_QUEUE_SETTLE_MS } from '../shared/topology.ts';

/** How long the queue may answer nothing, or with RabbitMQ's internal error, before it is replaced: one that recovers has time. */
const UNANSWERED_MAX_MS = 30_000;
const BROKEN_MAX_MS = 5000;
/** Well above the time from one attempt to the next: 10 s for an answer, and what comes before it. */
const BROKEN_AGAIN_MS = 60_000;
/** It closes the whole connection. */
const INTERNAL_ERROR = 541;

/** Outlives the sessions: one of them sees that the queue has been broken for too long, the next one makes a new one. */
export interface BrokenQueue {
  /** Consuming failed with `error`; the session has ended with `ended`, when it has. */
  failed(error: unknown, ended: unknown): void;
  consumed(): void;
  deleteIfDue(channel: Channel): Promise<void>;
}

export function watchForBrokenQueue(queue: string, log: Logger): BrokenQueue {
  /**
   * Since when it cannot be consumed although the broker is up, and when that was last observed.
   *
   */
  let sinceMs: number | undefined;
  let seenMs = 0;
  let isDue = false;

  return {
    failed(error, ended) {
      const isUnanswered = error instanceof BrokerTimeout;
      if (!isUnanswered && (ended as { code?: number } | undefined)?.code !== INTERNAL_ERROR) return;
      const nowMs = performance.now();
      if (nowMs - seenMs > BROKEN_AGAIN_MS) sinceMs = undefined; // the broker was down in between
      seenMs = nowMs;
      sinceMs ??= nowMs;
      const lastedMs = nowMs - sinceMs;
      log.error({ queue, lastedMs }, 'the ledger queue cannot be consumed');
      if (lastedMs < (isUnanswered ? UNANSWERED_MAX_MS : BROKEN_MAX_MS)) return;
      isDue = true;
      sinceMs = undefined;
    },

    consumed() {
      sinceMs = undefined;
    },

    async deleteIfDue(channel) {
      if (!isDue) return;
      log.error({ queue }, 'replacing the ledger queue');
      await answered('deleting the ledger queue', channel.deleteQueue(queue));
      await delay(DELETED_QUEUE_SETTLE_MS); // other workers consume it
      isDue = false;
    },
  };
}
