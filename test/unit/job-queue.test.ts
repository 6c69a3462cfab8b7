// The queue of a lane: which operations the next batch has.
import { describe, expect, it } from 'vitest';
import { JobQueue } from '../../src/api/updates/job-queue.ts';
import type { Operation } from '../../src/api/updates/operation.ts';
import { updateOperation } from '../support/harness.ts';

/** @param name its client is the first letter, its order the rest. */
function pushTo(queue: JobQueue, name: string, legs = 1): void {
  const operation = updateOperation(name, 1);
  const all = Array.from({ length: legs }, () => operation.legs[0]) as unknown as Operation['legs'];
  queue.push(name[0] as string, { operation: { ...operation, legs: all }, submittedAtMs: 0, resolve: () => {} });
}
const namesIn = (batch: ReturnType<JobQueue['take']>) => batch.map(({ operation }) => operation.legs[0].accountId);
const several = (client: string, count: number) => Array.from({ length: count }, (_, index) => `${client}${index}`);

describe('the queue of a lane', () => {
  it('gives all that waits where it fits, and those of a client in their order', () => {
    const queue = new JobQueue();
    for (const name of ['a0', 'b0', 'a1', 'b1', 'a2']) pushTo(queue, name);
    const batch = namesIn(queue.take(5));
    expect(batch.filter((name) => name.startsWith('a'))).toEqual(['a0', 'a1', 'a2']);
    expect(batch.filter((name) => name.startsWith('b'))).toEqual(['b0', 'b1']);
    expect([queue.legs, queue.clients, queue.take(5)]).toEqual([0, 0, []]);
  });

  it('has one who sends little in the next batch, whatever waits of those who send much', () => {
    const queue = new JobQueue();
    for (const client of ['x', 'y', 'z']) for (const name of several(client, 1000)) pushTo(queue, name);
    queue.take(100);
    for (const name of several('w', 10)) pushTo(queue, name);
    const batch = namesIn(queue.take(100));
    expect(batch).toHaveLength(100);
    expect(batch.filter((name) => name.startsWith('w'))).toEqual(several('w', 10));
  });

  it('shares by legs, not by operations', () => {
    const queue = new JobQueue();
    for (const name of several('l', 100)) pushTo(queue, name, 50);
    for (const name of several('s', 5000)) pushTo(queue, name, 1);
    const legs = { l: 0, s: 0 };
    for (let batch = 0; batch < 50; batch += 1) {
      for (const { operation } of queue.take(100)) {
        legs[operation.legs[0].accountId[0] as 'l' | 's'] += operation.legs.length;
      }
    }
    expect(legs.l / (legs.l + legs.s)).toBeCloseTo(0.5, 1);
  });

  it('keeps the order of each client over many batches, and loses none', () => {
    const queue = new JobQueue();
    const taken: string[] = [];
    for (let round = 0; round < 100; round += 1) {
      for (const name of several('a', 7)) pushTo(queue, `a${round * 7 + Number(name.slice(1))}`, 1 + (round % 3));
      for (const name of several('b', 3)) pushTo(queue, `b${round * 3 + Number(name.slice(1))}`);
      taken.push(...namesIn(queue.take(8)));
    }
    while (queue.legs > 0) taken.push(...namesIn(queue.take(8)));
    expect(taken.filter((name) => name.startsWith('a'))).toEqual(several('a', 700));
    expect(taken.filter((name) => name.startsWith('b'))).toEqual(several('b', 300));
  });

  it('takes one that has more legs than a batch alone, and no other that does not fit', () => {
    const queue = new JobQueue();
    pushTo(queue, 'a0', 200);
    pushTo(queue, 'a1', 60);
    pushTo(queue, 'b0', 60);
    const batches = [queue.take(100), queue.take(100), queue.take(100)];
    expect(batches.map(namesIn).sort()).toEqual([['a0'], ['a1'], ['b0']].sort());
    expect(queue.take(0)).toEqual([]);
  });

  it('makes room for a client that has little: the newest of the one that has the most', () => {
    const queue = new JobQueue();
    for (const name of several('g', 60)) pushTo(queue, name);
    for (const name of several('h', 40)) pushTo(queue, name);
    expect(queue.pushOut('o', 1)?.operation.keyAccountId).toBe('g59');
    expect(queue.pushOut('h', 1)?.operation.keyAccountId).toBe('g58');
    expect(queue.pushOut('h', 30)).toBeUndefined();
    expect(queue.pushOut('g', 1)).toBeUndefined();
    expect(queue.legs).toBe(98);
    expect(namesIn(queue.take())).toHaveLength(98);
  });

  it('forgets a client whose only operation was pushed out', () => {
    const queue = new JobQueue();
    pushTo(queue, 'g0', 100);
    pushTo(queue, 'o0');
    expect(queue.pushOut('o', 1)?.operation.keyAccountId).toBe('g0');
    expect([queue.clients, queue.legs, namesIn(queue.take(1))]).toEqual([1, 1, ['o0']]);
  });
});
