// Spreads balance updates over a fixed number of lanes. An account always uses the same lane of a process, so a hot
// account's updates meet in one batch instead of queueing for its row on several connections.
import type { BalanceUpdate, UpdateResult } from './balance-update.ts';
import { createLane, type LaneCounts, type LaneOptions, type Outcomes, type Priority } from './lane.ts';

export interface Lanes {
  /** Never rejects. Updates of one account and priority take effect in the order of submission. */
  submit(update: BalanceUpdate, priority: Priority): Promise<UpdateResult>;
  /** Of all lanes together. */
  counts(): LaneCounts;
  outcomes(): Outcomes;
  stop(): Promise<void>;
}

export function createLanes(count: number, options: LaneOptions): Lanes {
  const lanes = Array.from({ length: count }, () => createLane(options));
  return {
    submit: (update, priority) => lanes[hash(update.accountId) % count]!.submit(update, priority),
    counts() {
      const total = { waiting: 0, batches: 0, updates: 0, largestBatch: 0, waitedMs: 0 };
      for (const lane of lanes) {
        const one = lane.counts();
        total.waiting += one.waiting;
        total.batches += one.batches;
        total.updates += one.updates;
        total.largestBatch = Math.max(total.largestBatch, one.largestBatch);
        total.waitedMs += one.waitedMs;
      }
      return total;
    },
    outcomes() {
      const total: Outcomes = {};
      for (const lane of lanes) {
        for (const [outcome, updates] of Object.entries(lane.outcomes()))
          total[outcome] = (total[outcome] ?? 0) + updates;
      }
      return total;
    },
    async stop() {
      await Promise.all(lanes.map((lane) => lane.stop()));
    },
  };
}

/** FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  return value >>> 0;
}
