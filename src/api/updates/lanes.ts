// Spreads operations over a fixed number of lanes. An account always uses the same lane of a process, so a hot account's
// updates meet in one batch instead of queueing for its row on several connections; what changes several accounts goes to
// the lane of the busiest. Lanes that meet on an account take turns: each locks in the same order, so they never deadlock.
import { createHeat } from './heat.ts';
import { createLane, type LaneCounts, type LaneOptions, type Outcomes, type Priority } from './lane.ts';
import type { Operation, OperationResult } from './operation.ts';

export interface Lanes {
  /** Never rejects. Updates of one account and priority take effect in the order of submission. */
  submit(operation: Operation, priority: Priority): Promise<OperationResult>;
  /** Of all lanes together. */
  counts(): LaneCounts;
  outcomes(): Outcomes;
  stop(): Promise<void>;
}

export function createLanes(count: number, options: LaneOptions): Lanes {
  const lanes = Array.from({ length: count }, () => createLane(options));
  const heat = createHeat();
  return {
    submit: (operation, priority) => lanes[heat.busiest(operation.legs) % count]!.submit(operation, priority),
    counts() {
      const total = { waiting: 0, batches: 0, legs: 0, largestBatch: 0, waitedMs: 0 };
      for (const lane of lanes) {
        const one = lane.counts();
        total.waiting += one.waiting;
        total.batches += one.batches;
        total.legs += one.legs;
        total.largestBatch = Math.max(total.largestBatch, one.largestBatch);
        total.waitedMs += one.waitedMs;
      }
      return total;
    },
    outcomes() {
      const total: Outcomes = {};
      for (const lane of lanes) {
        for (const [outcome, operations] of Object.entries(lane.outcomes()))
          total[outcome] = (total[outcome] ?? 0) + operations;
      }
      return total;
    },
    async stop() {
      await Promise.all(lanes.map((lane) => lane.stop()));
    },
  };
}
