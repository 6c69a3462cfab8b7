// Spreads operations over a fixed number of lanes. An account always uses the same lane of a
// process, so a hot account's updates meet in one batch instead of queueing for its row on several
// connections; an operation on several accounts goes to the lane of the busiest. Lanes that meet on
// an account take turns: each locks in the same order, so they never deadlock.
import { createHeat } from './heat.ts';
import { createLane, type LaneCounts, type LaneOptions, type Priority } from './lane.ts';
import type { Operation, OperationResult } from './operation.ts';
import type { Outcomes } from './results.ts';

export interface Lanes {
  /**
   * Never rejects. Updates of one client, account and priority take effect in the order of
   * submission.
   */
  submit(operation: Operation, priority: Priority): Promise<OperationResult>;
  /**
   * Legs of bulk requests that wait: of a client in all lanes, and the most clients that have some
   * in one.
   */
  bulkWaiting(client: string): { legs: number; clients: number };
  /** Whether single operations came within the last second. */
  singlesCome(): boolean;
  /** Of all lanes together. */
  counts(): LaneCounts;
  /** Why lanes cannot apply updates, and how many, one sentence each. Opens missing connections. */
  problems(): Promise<string[]>;
  outcomes(): Outcomes;
  stop(): Promise<void>;
}

export function createLanes(count: number, options: LaneOptions): Lanes {
  const lanes = Array.from({ length: count }, () => createLane(options));
  const heat = createHeat();
  return {
    submit: (operation, priority) => lanes[heat.busiest(operation.legs) % count]!.submit(operation, priority),
    bulkWaiting(client) {
      const each = lanes.map((lane) => lane.bulkWaiting(client));
      return {
        legs: each.reduce((sum, { legs }) => sum + legs, 0),
        clients: Math.max(...each.map(({ clients }) => clients)),
      };
    },
    singlesCome: () => lanes.some((lane) => lane.singlesCome()),
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
    async problems() {
      const found = await Promise.all(lanes.map((lane) => lane.problem()));
      const byProblem = Map.groupBy(
        found.filter((problem) => problem !== undefined),
        (problem) => problem,
      );
      return [...byProblem].map(([problem, { length }]) => `${length} of ${count} lanes: ${problem}`);
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
