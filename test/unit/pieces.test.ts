// Long work in pieces: others get in between, and no two of it share a turn of the event loop.
import { setImmediate as turn } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { createPieces, mapInPieces } from '../../src/api/http/pieces.ts';

const PIECE_MS = 5;

function workFor(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

it('lets the event loop turn after each piece', async () => {
  const pieces = createPieces(PIECE_MS);
  let [turns, isOver] = [0, false];
  const counting = (async () => {
    for (; !isOver; turns += 1) await turn();
  })();
  await pieces.run((pause) => mapInPieces(Array.from({ length: 50 }), () => workFor(1), pause));
  isOver = true;
  await counting;
  expect(turns).toBeGreaterThanOrEqual(50 / PIECE_MS - 1);
});

it('does one work after the other, in order, and short ones in one turn', async () => {
  const pieces = createPieces(1000);
  const done: string[] = [];
  let turns = 0;
  let isOver = false;
  const counting = (async () => {
    for (; !isOver; turns += 1) await turn();
  })();
  await Promise.all(
    ['a', 'b', 'c', 'd'].map((name) =>
      pieces.run(async (pause) => {
        for (const part of [1, 2]) {
          await pause();
          done.push(name + part);
        }
      }),
    ),
  );
  isOver = true;
  await counting;
  expect(done).toEqual(['a1', 'a2', 'b1', 'b2', 'c1', 'c2', 'd1', 'd2']);
  expect(turns).toBeLessThan(4);
});

it('shares a turn among the works of many: together they take no more of it than one', async () => {
  const pieces = createPieces(PIECE_MS);
  let longestMs = 0;
  let isOver = false;
  const looking = (async () => {
    for (let before = performance.now(); !isOver; ) {
      await turn();
      const now = performance.now();
      longestMs = Math.max(longestMs, now - before);
      before = now;
    }
  })();
  await Promise.all(Array.from({ length: 40 }, () => pieces.run(async () => workFor(2))));
  isOver = true;
  await looking;
  expect(longestMs).toBeLessThan(60); // all at once are 80
});

it('continues with the others after one that failed', async () => {
  const pieces = createPieces(PIECE_MS);
  const failed = pieces.run(async () => {
    throw new Error('wrong');
  });
  const next = pieces.run(async () => 'done');
  await expect(failed).rejects.toThrow('wrong');
  expect(await next).toBe('done');
});
