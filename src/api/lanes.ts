// Spreads balance updates over a fixed number of lanes. An account always uses the same lane of a process, so a hot
// account's updates meet in one batch instead of queueing for its row on several connections.
import { type BalanceUpdate, createLane, type LaneOptions, type UpdateResult } from './lane.ts';

export interface Lanes {
  /** Never rejects. Results of one account come in the order of submission. */
  submit(update: BalanceUpdate): Promise<UpdateResult>;
  stop(): Promise<void>;
}

export function createLanes(count: number, options: LaneOptions): Lanes {
  const lanes = Array.from({ length: count }, () => createLane(options));
  return {
    submit: (update) => lanes[hash(update.accountId) % count]!.submit(update),
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
