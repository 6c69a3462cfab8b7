// The memory of what a process answered last: bounded, and apart by epoch.
import { expect, it } from 'vitest';
import { AnswersMemory } from '../../src/api/updates/answers-memory.ts';

it('gives what was answered in an epoch once a higher one is seen, and gives it once', () => {
  const memory = new AnswersMemory();
  expect(memory.isEmpty).toBe(true);
  memory.note('a', { version: 1, epoch: 5 });
  memory.note('b', { version: 7, epoch: 5 });
  memory.note('a', { version: 2, epoch: 5 });
  memory.see(5);
  expect(memory.takePast()).toEqual([]);
  memory.see(6);
  const seen = [
    { accountId: 'a', version: 2, epoch: 5 },
    { accountId: 'b', version: 7, epoch: 5 },
  ];
  expect(memory.takePast()).toEqual([{ epoch: 5, seen }]);
  expect(memory.takePast()).toEqual([]);
  expect(memory.isEmpty).toBe(true);
});

it('does not let the first answers of the next epoch cover those before', () => {
  const memory = new AnswersMemory();
  memory.note('a', { version: 9, epoch: 5 });
  memory.note('a', { version: 8, epoch: 6 });
  expect(memory.takePast()).toEqual([{ epoch: 5, seen: [{ accountId: 'a', version: 9, epoch: 5 }] }]);
  memory.note('a', { version: 9, epoch: 6 });
  memory.see(7);
  expect(memory.takePast()).toEqual([{ epoch: 6, seen: [{ accountId: 'a', version: 9, epoch: 6 }] }]);
});

it('gives what was answered in an epoch that the database has left for an older one', () => {
  const memory = new AnswersMemory();
  memory.note('a', { version: 1, epoch: 5 });
  memory.see(6);
  memory.note('a', { version: 2, epoch: 6 });
  memory.takePast();
  memory.note('b', { version: 3, epoch: 5 });
  expect(memory.epoch).toBe(6);
  memory.fallTo(5);
  expect(memory.epoch).toBe(5);
  memory.note('a', { version: 2, epoch: 5 });
  expect(memory.takePast()).toEqual([{ epoch: 6, seen: [{ accountId: 'a', version: 2, epoch: 6 }] }]);
});

it('keeps a late answer of the epoch before', () => {
  const memory = new AnswersMemory();
  memory.note('a', { version: 8, epoch: 6 });
  memory.note('b', { version: 3, epoch: 5 });
  memory.note('c', { version: 4, epoch: 5 });
  const seen = [
    { accountId: 'b', version: 3, epoch: 5 },
    { accountId: 'c', version: 4, epoch: 5 },
  ];
  expect(memory.takePast()).toEqual([{ epoch: 5, seen }]);
});

it('remembers the last 10,000 accounts at least and about 20,000 at most', () => {
  const memory = new AnswersMemory();
  for (let number = 0; number < 95_000; number += 1) memory.note(`a${number}`, { version: number, epoch: 1 });
  memory.see(2);
  const seen = memory.takePast()[0]?.seen ?? [];
  expect(seen.length).toBeLessThanOrEqual(20_001);
  const known = new Set(seen.map(({ accountId }) => accountId));
  for (let number = 85_000; number < 95_000; number += 1) expect(known.has(`a${number}`)).toBe(true);
});

it('remembers the last four epochs that nobody compared', () => {
  const memory = new AnswersMemory();
  for (let epoch = 1; epoch <= 9; epoch += 1) memory.note('a', { version: 1, epoch });
  expect(memory.takePast().map(({ epoch }) => epoch)).toEqual([5, 6, 7, 8]);
});
