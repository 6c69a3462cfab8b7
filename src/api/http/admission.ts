// Decides which requests are accepted when more arrive than the event loop can serve. Without it,
// every answer would come later and later: at each step, a request waits in its socket for all
// others that are ready.
//
// The turns of the event loop show how long that is. Once they have been long for a while, the
// level limits how much of each party (a client, with one kind of requests) is taken in a turn.
// What it sends beyond that is refused at once, which costs a fifth as much. The level is the same
// for all: it is halved after a long turn and grows slowly after a short one and while nothing
// comes, so that turns stay near the limit under any load and on any machine. No party is refused
// anything while it has less than half of the average: the level works on those that cause the
// load.
//
// A turn counts as long by the CPU time that it took, not by the clock: if the process itself waits
// for a CPU, refusing does not help. A short burst of work, such as the files of a page or a
// garbage collection, is over before anything is refused.

/** A request that comes in while others are served waits for about a turn. */
const TURN_MS_MAX = 25;
/** How long all turns must have been long before anything is refused. */
const SUSTAINED_MS = 250;
/** The overload is over after this long without a long turn or a refusal. */
const CALM_MS = 1000;
/**
 * At the start of every TURN_MS_MAX requests are taken for this long, even when refusing alone is
 * too much work.
 */
const TAKING_MS_MIN = 1;
/**
 * The level falls only if requests that were taken used more than this of a long turn. Otherwise
 * something else made it long, and refusing more would not help.
 */
const TAKEN_MS_MIN = 3;
/** Part of what the parties of a turn had on average: up to it, everything is taken. */
const FAIR = 0.5;
/** Part of what was taken in a turn that still counts in the next one. */
const REMEMBERED = 0.25;
/** Even at the lowest level, a request of each party is taken about every fourth turn. */
const LEVEL_MIN = 1 / 256;
/** No turn has this much: above it, everything is taken. */
const LEVEL_MAX = 100_000;
const SHRINK = 0.5;
const GROW = 1.05;
/** More than there can be: three kinds for each API key. */
const PARTIES_MAX = 10_000;

export interface Clock {
  /** Milliseconds. */
  now(): number;
  /** CPU time of this thread so far, in milliseconds. */
  cpuMs(): number;
  /** Calls back when this turn of the event loop has served all that is ready. */
  atEndOfTurn(callback: () => void): void;
}

const eventLoop: Clock = {
  now: () => performance.now(),
  cpuMs() {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1000;
  },
  atEndOfTurn: (callback) => setImmediate(callback),
};

/** Whose share a request takes from, and how much. Both are called only if it matters. */
export interface Claim {
  party(): string;
  /** In requests of the usual size. */
  cost(): number;
}

export interface Admission {
  /** Whether to take the request. */
  admits(claim?: Claim): boolean;
  /** Does the work that a request causes at once after it was taken, and measures its time. */
  taking(work: () => void): void;
}

const ANYONE: Claim = { party: () => '', cost: () => 1 };

interface Party {
  /** What was taken of it up to this turn; what was taken in earlier turns counts less. */
  taken: number;
  turn: number;
}

export function createAdmission(clock: Clock = eventLoop): Admission {
  let level = Number.POSITIVE_INFINITY;
  let turn: { startedAtMs: number; startedAtCpuMs: number | undefined } | undefined;
  let turns = 0;
  let endedAtMs = 0;
  /** Since when all turns have been long, by the clock. */
  let longSinceMs: number | undefined;
  /** When the last long turn or refusal was. */
  let troubleAtMs = 0;
  const parties = new Map<string, Party>();
  /** Those of this turn. */
  let present: Party[] = [];
  /** Below it no party of this turn is refused anything. */
  let fair = 0;
  /** How long what was taken in this turn kept the event loop busy. */
  let takenMs = 0;

  function grow(turns: number): void {
    level *= GROW ** turns;
    if (level > LEVEL_MAX) level = Number.POSITIVE_INFINITY;
  }

  function beginTurn(nowMs: number): void {
    const idleMs = Math.max(0, nowMs - endedAtMs);
    if (idleMs > TURN_MS_MAX) longSinceMs = undefined;
    if (nowMs - troubleAtMs > CALM_MS) level = Number.POSITIVE_INFINITY;
    // Without requests there are no turns: idle time counts as short ones.
    else if (level < Number.POSITIVE_INFINITY) grow(idleMs / TURN_MS_MAX);
    const isSustained = longSinceMs !== undefined && nowMs - longSinceMs >= SUSTAINED_MS;
    // Asking for the CPU time takes a microsecond, so only if there is something to decide.
    const isWatching = isSustained || level < Number.POSITIVE_INFINITY;
    turn = { startedAtMs: nowMs, startedAtCpuMs: isWatching ? clock.cpuMs() : undefined };
    clock.atEndOfTurn(endTurn);
  }

  function endTurn(): void {
    if (!turn) return;
    const { startedAtMs, startedAtCpuMs } = turn;
    turn = undefined;
    turns += 1;
    endedAtMs = clock.now();
    if (endedAtMs - startedAtMs > TURN_MS_MAX) longSinceMs ??= startedAtMs;
    else longSinceMs = undefined;
    if (startedAtCpuMs !== undefined) judge(clock.cpuMs() - startedAtCpuMs);
    takenMs = 0;
    present = [];
  }

  function judge(cpuMs: number): void {
    const all = present.map(({ taken }) => taken);
    fair = all.length > 1 ? (FAIR * all.reduce((sum, taken) => sum + taken, 0)) / all.length : 0;
    if (cpuMs > TURN_MS_MAX && takenMs > TAKEN_MS_MIN) {
      level = Math.max(LEVEL_MIN, Math.min(level, Math.max(...all)) * SHRINK);
      troubleAtMs = endedAtMs;
    } else grow(1);
  }

  function partyOf(name: string): Party {
    let party = parties.get(name);
    if (!party) {
      if (parties.size >= PARTIES_MAX) parties.clear();
      party = { taken: 0, turn: -1 };
      parties.set(name, party);
    }
    if (party.turn === turns) return party;
    party.taken *= REMEMBERED ** (turns - party.turn);
    party.turn = turns;
    present.push(party);
    return party;
  }

  return {
    admits(claim = ANYONE) {
      const nowMs = clock.now();
      if (!turn) beginTurn(nowMs);
      const { startedAtMs, startedAtCpuMs } = turn as NonNullable<typeof turn>;
      if (startedAtCpuMs === undefined) return true;
      const party = partyOf(claim.party());
      if (party.taken < Math.max(level, fair)) {
        party.taken += claim.cost();
        return true;
      }
      troubleAtMs = nowMs;
      return (nowMs - startedAtMs) % TURN_MS_MAX <= TAKING_MS_MIN;
    },
    taking(work) {
      if (turn?.startedAtCpuMs === undefined) return work();
      const startedAtMs = clock.now();
      try {
        work();
      } finally {
        takenMs += clock.now() - startedAtMs;
      }
    },
  };
}
