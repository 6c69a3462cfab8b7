// The cursor against a simulated outbox, in which positions are drawn before they are committed, in
// any order.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { OutboxPage, OutboxRow } from '../../src/api/relay/outbox.ts';
import { OutboxCursor } from '../../src/api/relay/outbox-cursor.ts';

const LIMIT = 5;

interface Transaction {
  id: number;
  positions: number[];
  state: 'running' | 'committed' | 'rolled back';
}

/**
 * What PostgreSQL shows: commits become visible, in position order; a transaction holds its lock
 * until it is over.
 */
class SimulatedOutbox {
  readonly transactions: Transaction[] = [];
  #nextId = 1;
  #nextPosition = 1;

  begin(): Transaction {
    const transaction: Transaction = { id: this.#nextId++, positions: [], state: 'running' };
    this.transactions.push(transaction);
    return transaction;
  }

  insert(transaction: Transaction): void {
    transaction.positions.push(this.#nextPosition++);
  }

  read(cursor: OutboxCursor): OutboxPage {
    const wanted = (position: number) =>
      position > cursor.behind || cursor.gaps.some((gap) => position >= gap.first && position <= gap.last);
    return this.committed()
      .filter(wanted)
      .slice(0, LIMIT)
      .map((position) => ({ position }) as OutboxRow);
  }

  writers(): string[] {
    return this.transactions.filter(({ state }) => state === 'running').map(({ id }) => String(id));
  }

  committed(): number[] {
    const all = this.transactions.filter(({ state }) => state === 'committed').flatMap(({ positions }) => positions);
    return all.sort((a, b) => a - b);
  }
}

type Action = 'begin' | 'insert' | 'commit' | 'roll back' | 'ask' | 'read';

describe('OutboxCursor', () => {
  it('yields every committed position exactly once, however transactions interleave', () => {
    const actions = fc.array(
      fc.tuple(fc.constantFrom<Action>('begin', 'insert', 'insert', 'commit', 'roll back', 'ask', 'read'), fc.nat()),
      { minLength: 20, maxLength: 200 }, // long enough for transactions to overlap
    );
    fc.assert(
      fc.property(actions, (plan) => {
        const outbox = new SimulatedOutbox();
        let cursor = new OutboxCursor();
        const yielded: number[] = [];
        const read = () => {
          const page = outbox.read(cursor);
          cursor = cursor.advance(page, LIMIT);
          yielded.push(...page.map((row) => row.position));
          return page.length;
        };
        for (const [action, choice] of plan) {
          const running = outbox.transactions.filter(({ state }) => state === 'running');
          const one = running[choice % Math.max(1, running.length)];
          if (action === 'read') read();
          else if (action === 'ask')
            cursor = cursor.noteWriters(outbox.writers()); // others commit between asking and reading
          else if (action === 'begin') outbox.begin();
          else if (!one) continue;
          else if (action === 'insert') outbox.insert(one);
          else one.state = action === 'commit' ? 'committed' : 'rolled back';
        }
        for (const one of outbox.transactions) if (one.state === 'running') one.state = 'committed';
        do cursor = cursor.noteWriters(outbox.writers());
        while (read() > 0);
        cursor = cursor.noteWriters(outbox.writers());
        read();
        expect(yielded.sort((a, b) => a - b)).toEqual(outbox.committed());
        expect(cursor.gaps).toEqual([]); // nothing is running: nothing is waited for
      }),
      { numRuns: 2000 },
    );
  });

  it('forgets a rolled-back position although a transaction of nobody here stays open', () => {
    let cursor = new OutboxCursor().advance([{ position: 2 } as OutboxRow], LIMIT); // position 1 is missing
    cursor = cursor.noteWriters(['a']).advance([], LIMIT);
    expect(cursor.gaps).toMatchObject([{ first: 1, last: 1 }]);
    cursor = cursor.noteWriters(['b']).advance([], LIMIT); // another writer, which began later
    expect(cursor.gaps).toEqual([]);
  });
});
