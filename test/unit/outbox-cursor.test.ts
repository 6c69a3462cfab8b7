// The cursor against a simulated outbox, in which positions are drawn before they are committed, in any order.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { OutboxPage, OutboxRow } from '../../src/api/outbox.ts';
import { OutboxCursor } from '../../src/api/outbox-cursor.ts';

const LIMIT = 5;

interface Transaction {
  id: number;
  positions: number[];
  state: 'running' | 'committed' | 'rolled back';
}

/** What PostgreSQL shows: commits become visible, in position order, with the oldest transaction still running. */
class SimulatedOutbox {
  readonly transactions: Transaction[] = [];
  #nextId = 1;
  #nextPosition = 1;

  drawTransactionId(): number {
    return this.#nextId++;
  }

  begin(): Transaction {
    const transaction: Transaction = { id: this.drawTransactionId(), positions: [], state: 'running' };
    this.transactions.push(transaction);
    return transaction;
  }

  insert(transaction: Transaction): void {
    transaction.positions.push(this.#nextPosition++);
  }

  read(cursor: OutboxCursor): OutboxPage {
    const wanted = (position: number) =>
      position > cursor.behind || cursor.gaps.some((gap) => position >= gap.first && position <= gap.last);
    const running = this.transactions.filter(({ state }) => state === 'running').map(({ id }) => id);
    const positions = this.committed().filter(wanted).slice(0, LIMIT);
    return {
      rows: positions.map((position) => ({ position }) as OutboxRow),
      oldestRunning: Math.min(this.#nextId, ...running),
    };
  }

  committed(): number[] {
    const all = this.transactions.filter(({ state }) => state === 'committed').flatMap(({ positions }) => positions);
    return all.sort((a, b) => a - b);
  }
}

type Action = 'begin' | 'insert' | 'commit' | 'roll back' | 'read';

describe('OutboxCursor', () => {
  it('yields every committed position exactly once, however transactions interleave', () => {
    const actions = fc.array(
      fc.tuple(fc.constantFrom<Action>('begin', 'insert', 'insert', 'commit', 'roll back', 'read'), fc.nat()),
      { minLength: 20, maxLength: 200 }, // long enough for transactions to overlap
    );
    fc.assert(
      fc.property(actions, (plan) => {
        const outbox = new SimulatedOutbox();
        const cursor = new OutboxCursor();
        const yielded: number[] = [];
        const read = () => {
          const page = outbox.read(cursor);
          cursor.advance(page, LIMIT);
          if (cursor.unbounded) cursor.bound(outbox.drawTransactionId());
          yielded.push(...page.rows.map((row) => row.position));
          return page.rows.length;
        };
        for (const [action, choice] of plan) {
          const running = outbox.transactions.filter(({ state }) => state === 'running');
          const one = running[choice % Math.max(1, running.length)];
          if (action === 'read') read();
          else if (action === 'begin') outbox.begin();
          else if (!one) continue;
          else if (action === 'insert') outbox.insert(one);
          else one.state = action === 'commit' ? 'committed' : 'rolled back';
        }
        for (const one of outbox.transactions) if (one.state === 'running') one.state = 'committed';
        while (read() > 0);
        read();
        expect(yielded.sort((a, b) => a - b)).toEqual(outbox.committed());
        expect(cursor.gaps).toEqual([]); // nothing is running: nothing is waited for
      }),
      { numRuns: 2000 },
    );
  });

  it('keeps a bounded number of gaps and then reads something twice rather than nothing', () => {
    const outbox = new SimulatedOutbox();
    const cursor = new OutboxCursor();
    const open = outbox.begin(); // holds every gap open
    outbox.insert(open);
    for (let count = 0; count < 1500; count += 1) {
      const lost = outbox.begin();
      outbox.insert(lost);
      lost.state = 'rolled back';
      const kept = outbox.begin();
      outbox.insert(kept);
      kept.state = 'committed';
      cursor.advance(outbox.read(cursor), LIMIT);
      cursor.bound(outbox.drawTransactionId());
    }
    expect(cursor.gaps.length).toBeLessThanOrEqual(1000);
    open.state = 'committed';
    const first = outbox.read(cursor).rows[0];
    expect(first?.position).toBe(1);
  });
});
