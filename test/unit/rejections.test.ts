import { describe, expect, it } from 'vitest';
import type { OutboxRow } from '../../src/api/relay/outbox.ts';
import { Rejections } from '../../src/api/relay/rejections.ts';

const row = (position: number) => ({ position }) as OutboxRow;

describe('Rejections', () => {
  it('hands out a row after a pause that doubles, and once each time', () => {
    const rejections = new Rejections();
    rejections.add(row(1), 0);
    expect(rejections.takeDue(99, 10)).toEqual([]);
    expect(rejections.takeDue(100, 10)).toEqual([row(1)]);
    expect(rejections.takeDue(101, 10)).toEqual([]);
    rejections.add(row(1), 1000);
    expect(rejections.takeDue(1199, 10)).toEqual([]);
    expect(rejections.takeDue(1200, 10)).toEqual([row(1)]);
  });

  it('owes an event for a bounded number of tries, then lets it go', () => {
    const rejections = new Rejections();
    for (let attempt = 1; attempt < 6; attempt += 1) rejections.add(row(7), 0);
    expect(rejections.firstOwed()).toBe(7);
    rejections.add(row(7), 0);
    expect(rejections.firstOwed()).toBe(Number.POSITIVE_INFINITY);
    expect(rejections.abandon(6)).toBe(0); // still tried while the ledger lacks it
    expect(rejections.abandon(7)).toBe(1);
    expect(rejections.abandon(7)).toBe(0);
  });

  it('lets everything go when there are too many, and says so', () => {
    const rejections = new Rejections();
    for (let position = 0; position < 10_000; position += 1) rejections.add(row(position), 0);
    expect(rejections.full).toBe(true);
    expect(rejections.firstOwed()).toBe(Number.POSITIVE_INFINITY);
    rejections.delete(row(0));
    expect(rejections.full).toBe(false);
    expect(rejections.firstOwed()).toBe(1);
  });
});
