import { describe, expect, it } from 'vitest';
import { createAdmission } from '../../src/api/http/admission.ts';

/**
 * An event loop made of turns: each serves some requests, and taking or refusing one costs so many
 * milliseconds.
 * @param cost `otherMs`: of each turn, for what no request causes.
 */
function eventLoop(cost: { takenMs: number; refusedMs: number; otherMs?: number }) {
  let nowMs = 0;
  let cpuMs = 0;
  let endTurn = () => {};
  const admission = createAdmission({
    now: () => nowMs,
    cpuMs: () => cpuMs,
    atEndOfTurn: (callback) => {
      endTurn = callback;
    },
  });
  function spend(ms: number): void {
    cpuMs += ms;
    nowMs += ms;
  }

  /** A quarter of what a request costs is used at once, the rest later in its turn. */
  function use(isTaken: boolean, claimed: number): void {
    const costMs = isTaken ? cost.takenMs * claimed : cost.refusedMs;
    if (isTaken) admission.taking(() => spend(costMs / 4));
    spend(isTaken ? (3 * costMs) / 4 : costMs);
  }

  return {
    /** One turn with requests of several parties. @returns how many of each were taken, and how long it took. */
    turnOf(requests: readonly string[], costOfParty: Record<string, number> = {}) {
      const startedAtMs = nowMs;
      const taken: Record<string, number> = {};
      for (const party of requests) {
        const claimed = costOfParty[party] ?? 1;
        const isTaken = admission.admits({ party: () => party, cost: () => claimed });
        if (isTaken) taken[party] = (taken[party] ?? 0) + 1;
        use(isTaken, claimed);
      }
      spend(cost.otherMs ?? 0);
      endTurn();
      return { taken, tookMs: nowMs - startedAtMs };
    },
    /** @param pauseMs in the middle of which the process does not get the CPU. */
    turn(requests: number, pauseMs = 0, idleMs = 0) {
      nowMs += idleMs;
      const startedAtMs = nowMs;
      let taken = 0;
      for (let index = 0; index < requests; index += 1) {
        const isTaken = admission.admits();
        if (isTaken) taken += 1;
        use(isTaken, 1);
        nowMs += pauseMs / requests;
      }
      endTurn();
      return { taken, refused: requests - taken, tookMs: nowMs - startedAtMs };
    },
  };
}

const COST = { takenMs: 0.2, refusedMs: 0.03 };

describe('admission', () => {
  it('takes everything while turns are short', () => {
    const loop = eventLoop(COST);
    for (let turn = 0; turn < 1000; turn += 1) expect(loop.turn(100).refused).toBe(0);
  });

  it('refuses nothing because of one long turn, or because of the crowd that gathered in it', () => {
    const loop = eventLoop(COST);
    loop.turn(2000);
    expect(loop.turn(400).refused).toBe(0);
    for (let turn = 0; turn < 100; turn += 1) expect(loop.turn(10).refused).toBe(0);
  });

  it('refuses nothing of a crowd that is served within a quarter of a second', () => {
    const loop = eventLoop(COST);
    for (let crowd = 0; crowd < 100; crowd += 1) {
      for (let turn = 0; turn < 6; turn += 1) expect(loop.turn(200).refused).toBe(0);
      loop.turn(1, 0, 200);
    }
  });

  it('refuses nothing of a party that sends little, though something else makes all turns long', () => {
    const loop = eventLoop({ ...COST, otherMs: 40 });
    const requests = [...Array(300).fill('greedy'), ...Array(5).fill('within')];
    for (let turn = 0; turn < 1000; turn += 1) expect(loop.turnOf(requests).taken.within).toBe(5);
  });

  it('refuses nothing because the process waits for the CPU', () => {
    const loop = eventLoop(COST);
    for (let turn = 0; turn < 100; turn += 1) expect(loop.turn(50, 500).refused).toBe(0);
  });

  it('keeps turns near 25 ms at five times of what can be taken, and still takes what it can', () => {
    const loop = eventLoop(COST);
    const arrivingPerMs = 25; // 5,000 a second are the most that could be taken
    const connections = 3000; // each with one request at a time
    const turns = [loop.turn(1000)];
    let elapsedMs = 0;
    const load = (untilMs: number) => {
      const first = turns.length;
      for (; elapsedMs < untilMs; elapsedMs += turns.at(-1)?.tookMs ?? 0) {
        turns.push(loop.turn(Math.min(connections, Math.ceil((turns.at(-1)?.tookMs ?? 0) * arrivingPerMs))));
      }
      return turns.slice(first);
    };
    expect(Math.max(...load(2000).map(({ tookMs }) => tookMs))).toBeCloseTo(connections * COST.takenMs); // until it notices
    const later = load(60_000);
    expect(Math.max(...later.map(({ tookMs }) => tookMs))).toBeLessThan(60);
    const seconds = later.reduce((sum, { tookMs }) => sum + tookMs, 0) / 1000;
    const takenPerSecond = later.reduce((sum, { taken }) => sum + taken, 0) / seconds;
    // All the time that refusing leaves: 25,000 x 0.03 ms a second are for that.
    expect(takenPerSecond).toBeGreaterThan(0.8 * ((1000 - 750) / COST.takenMs));
  });

  it('takes some of them even when refusing alone is too much work', () => {
    const loop = eventLoop(COST);
    for (let turn = 0; turn < 20; turn += 1) loop.turn(20_000);
    const { taken, tookMs } = loop.turn(100_000);
    expect(tookMs).toBeGreaterThan(3000);
    expect(taken).toBeGreaterThan(tookMs / 25);
    expect(taken).toBeLessThan(tookMs / 4);
  });

  it('takes everything again within a second of short turns', () => {
    const loop = eventLoop(COST);
    for (let turn = 0; turn < 20; turn += 1) loop.turn(20_000);
    for (let elapsedMs = 0; elapsedMs < 1000; ) elapsedMs += loop.turn(20).tookMs;
    expect(loop.turn(190).refused).toBe(0);
  });

  it('takes everything again after ten seconds with few requests or none', () => {
    for (const everyMs of [500, 10_000]) {
      const loop = eventLoop(COST);
      for (let turn = 0; turn < 200; turn += 1) loop.turn(3000);
      expect(loop.turn(100).refused).toBeGreaterThan(50);
      for (let elapsedMs = 0; elapsedMs < 10_000; elapsedMs += everyMs) loop.turn(1, 0, everyMs);
      expect(loop.turn(100).refused).toBe(0);
    }
  });

  it('takes all of a party within its share, however much others send before it in each turn', () => {
    const loop = eventLoop(COST);
    const requests = [...Array(300).fill('greedy'), ...Array(200).fill('greedier'), ...Array(10).fill('within')];
    for (let turn = 0; turn < 20; turn += 1) loop.turnOf(requests);
    let within = 0;
    let longestMs = 0;
    for (let turn = 0; turn < 200; turn += 1) {
      const { taken, tookMs } = loop.turnOf(requests);
      within += taken.within ?? 0;
      longestMs = Math.max(longestMs, tookMs);
    }
    expect(within).toBe(200 * 10);
    expect(longestMs).toBeLessThan(60);
  });

  it('takes all of a party within its share even when refusing the others is too much work', () => {
    const loop = eventLoop(COST);
    const requests = [...Array(5000).fill('greedy'), ...Array(10).fill('within')];
    for (let turn = 0; turn < 20; turn += 1) loop.turnOf(requests);
    let within = 0;
    for (let turn = 0; turn < 100; turn += 1) within += loop.turnOf(requests).taken.within ?? 0;
    expect(within).toBe(100 * 10);
  });

  it('gives the same to each of those who want more', () => {
    const loop = eventLoop(COST);
    const requests = [...Array(300).fill('greedy'), ...Array(200).fill('greedier')];
    const taken: Record<string, number> = { greedy: 0, greedier: 0 };
    for (let turn = 0; turn < 500; turn += 1) {
      for (const [party, count] of Object.entries(loop.turnOf(requests).taken))
        taken[party] = (taken[party] ?? 0) + count;
    }
    expect((taken.greedy as number) / (taken.greedier as number)).toBeCloseTo(1, 0);
  });

  it('counts what a request is known to cost', () => {
    const loop = eventLoop(COST);
    const requests = [...Array(20).fill('bulk'), ...Array(200).fill('single')];
    const taken: Record<string, number> = { bulk: 0, single: 0 };
    for (let turn = 0; turn < 500; turn += 1) {
      const now = loop.turnOf(requests, { bulk: 50 }).taken;
      if (turn < 20) continue;
      for (const [party, count] of Object.entries(now)) taken[party] = (taken[party] ?? 0) + count;
    }
    expect((50 * (taken.bulk as number)) / (taken.single as number)).toBeLessThan(2);
  });
});
