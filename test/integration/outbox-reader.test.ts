// Two tracks that read the outbox by one reader, as close or as far apart as they come to be, while
// transactions draw positions and end in any order.
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import type { PoolClient } from 'pg';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { OutboxCursor } from '../../src/api/relay/outbox-cursor.ts';
import { OutboxReader } from '../../src/api/relay/outbox-reader.ts';
import type { Pool } from '../../src/shared/database.ts';
import { cleanUp, createDatabase, type Database, until } from '../support/harness.ts';

const INSERT = `
  INSERT INTO outbox (account_id, version, epoch, previous_epoch, amount, balance, created_at, type, asset)
  VALUES ('a', nextval('versions'), 1, 1, 1, 1, now(), 'balance.credited', 'UNIT')`;

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
  await database.pool.query('CREATE SEQUENCE versions');
});
afterEach(() => database.pool.query('TRUNCATE outbox'));
afterAll(cleanUp);

/** One of the two, with what it was given. */
class Reading {
  cursor: OutboxCursor;
  readonly positions: number[] = [];

  constructor(after: number) {
    this.cursor = new OutboxCursor(after);
  }

  async next(reader: OutboxReader, limit: number): Promise<number> {
    const { page, cursor } = await reader.next(this.cursor, limit);
    this.cursor = cursor;
    this.positions.push(...page.map(({ position }) => position));
    return page.length;
  }
}

const drawn = async (): Promise<number> =>
  (await database.pool.query(`SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS last FROM outbox_position`))
    .rows[0].last;

it('gives each of two tracks each change once, however transactions and reads interleave', async () => {
  const action = fc.tuple(
    fc.constantFrom('begin', 'insert', 'insert', 'commit', 'roll back', 'first', 'second', 'second', 'both'),
    fc.nat({ max: 9 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(action, { minLength: 20, maxLength: 80 }), async (plan) => {
      const after = await drawn();
      const reader = new OutboxReader(database.pool);
      const [first, second] = [new Reading(after), new Reading(after)];
      const running: PoolClient[] = [];
      const end = async (place: number, how: 'COMMIT' | 'ROLLBACK') => {
        const [one] = running.splice(place, 1);
        await one?.query(how);
        one?.release();
      };
      try {
        for (const [what, choice] of plan) {
          const place = choice % Math.max(1, running.length);
          if (what === 'begin' && running.length < 3) {
            const one = await database.pool.connect();
            running.push(one);
            await one.query('BEGIN');
          } else if (what === 'insert') await running[place]?.query(INSERT);
          else if (what === 'commit') await end(place, 'COMMIT');
          else if (what === 'roll back') await end(place, 'ROLLBACK');
          else if (what === 'first') await first.next(reader, choice + 1);
          else if (what === 'second') await second.next(reader, 10 - choice);
          else if (what === 'both') await Promise.all([first.next(reader, 5), second.next(reader, 5)]);
        }
      } finally {
        while (running.length > 0) await end(0, 'COMMIT');
      }
      for (const track of [first, second]) {
        for (let empty = 0; empty < 3; ) empty = (await track.next(reader, 5)) === 0 ? empty + 1 : 0;
      }
      const { rows } = await database.pool.query('SELECT position FROM outbox WHERE position > $1 ORDER BY position', [
        after,
      ]);
      const committed = rows.map(({ position }) => position);
      for (const { positions, cursor } of [first, second]) {
        expect([...positions].sort((a, b) => a - b)).toEqual(committed);
        expect(cursor.gaps).toEqual([]); // nothing is running: nothing is waited for
      }
    }),
    { numRuns: 60 },
  );
});

it('reads a page once for two tracks at the same place, whichever comes first and whatever it asks for', async () => {
  let reads = 0;
  const counted = {
    query: (...query: Parameters<Pool['query']>) => {
      reads += 1;
      return database.pool.query(...query);
    },
  } as unknown as Pool;
  const insert = async (rows: number) => {
    for (let row = 0; row < rows; row += 1) await database.pool.query(INSERT);
  };
  const from = new OutboxCursor(await drawn());
  const reader = new OutboxReader(counted);

  await insert(3);
  const [one, other] = await Promise.all([reader.next(from, 100), reader.next(from, 100)]);
  expect(other.page).toBe(one.page);
  expect(one.page).toHaveLength(3);
  expect(reads).toBe(1);

  await insert(2);
  const ahead = await reader.next(one.cursor, 100);
  await insert(1);
  const further = await reader.next(ahead.cursor, 100);
  expect((await reader.next(other.cursor, 100)).page).toBe(ahead.page);
  expect((await reader.next(ahead.cursor, 100)).page).toBe(further.page);
  expect(reads).toBe(3);

  await insert(4);
  const whole = await reader.next(further.cursor, 100);
  const same = await reader.next(further.cursor, 2);
  expect(whole.page).toHaveLength(4);
  expect(same.page).toBe(whole.page);
  expect(reads).toBe(4);

  const none = await Promise.all([reader.next(whole.cursor, 100), reader.next(whole.cursor, 100)]);
  expect(none.map(({ page }) => page.length)).toEqual([0, 0]);
  expect(reads).toBe(6); // a change may have come after the first of them
});

/** Makes each turn of the event loop take so long. @returns a function that ends that. */
function busyTurns(ms: number): () => void {
  let isOver = false;
  const turn = () => {
    for (const endsAtMs = performance.now() + ms; performance.now() < endsAtMs; );
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  return () => {
    isOver = true;
  };
}

it('asks for more rows the longer a turn takes, as it has one page a turn, and not because a page takes long', async () => {
  let delayMs = 0;
  const slow = {
    query: async (...query: Parameters<Pool['query']>) => {
      const answer = await database.pool.query(...query);
      await delay(delayMs);
      return answer;
    },
  } as unknown as Pool;
  const reader = new OutboxReader(slow);
  const from = new OutboxCursor(await drawn());
  const rowsMaxIn = async (turnMs: number) => {
    const calm = busyTurns(turnMs);
    await reader.next(from);
    await reader.next(from);
    calm();
    return reader.rowsMax;
  };
  expect(reader.rowsMax).toBe(1000);
  expect(await rowsMaxIn(60)).toBeGreaterThanOrEqual(2400);
  expect(await rowsMaxIn(120)).toBe(3000);
  delayMs = 100;
  await until('a turn takes no longer than usual', async () => {
    await reader.next(from);
    return reader.rowsMax === 1000;
  });
});

it('shares the pages of a backlog though how many rows it asks for changes from page to page', async () => {
  let cursor = new OutboxCursor(await drawn());
  await database.pool.query(INSERT.replace(/VALUES \((.*)\)$/s, 'SELECT $1 FROM generate_series(1, 12000)'));
  const reader = new OutboxReader(database.pool);
  for (const [rows, othersRows] of [
    [3000, 1967],
    [1000, 3000],
    [1500, 1000],
  ] as const) {
    const one = await reader.next(cursor, rows);
    const further = reader.next(one.cursor, othersRows); // being read, it takes no other page's place
    expect((await reader.next(cursor, othersRows)).page).toBe(one.page);
    await further;
    expect((await reader.next(one.cursor, rows)).page).toHaveLength(othersRows);
    cursor = (await further).cursor;
  }
});

it('remembers the newest pages for the other track, a few thousand rows of them', async () => {
  const from = new OutboxCursor(await drawn());
  await database.pool.query(INSERT.replace(/VALUES \((.*)\)$/s, 'SELECT $1 FROM generate_series(1, 6000)'));
  const reader = new OutboxReader(database.pool);
  const one = await reader.next(from, 3000);
  const next = await reader.next(one.cursor, 3000);
  const other = await reader.next(from, 3000);
  expect(other.page).toEqual(one.page);
  expect(other.page).not.toBe(one.page);
  expect((await reader.next(other.cursor, 3000)).page).toBe(next.page);
});
