// Decides which requests are accepted when more arrive than the event loop can serve. Without it,
// every answer would come later and later: a request waits in its socket for all others that are
// ready, again at each step.
//
// How long that is shows in the turns of the event loop. Once they have been long for a while, each
// party (a client, with one kind of requests) has so much taken in a turn, the level, and what it
// sends beyond that is refused at once, which costs a fifth. The level is the same for all: it is
// halved after a long turn and grows slowly after a short one and while nothing comes, so that turns
// stay near the limit under any load and on any machine. No party is refused anything while it has
// less than half of what the others have on average: the level works on those who cause the load.
//
// A turn is long by the CPU time that it took, not by the clock: if the process itself waits for a
// CPU, refusing does not help. A crowd that comes at once, such as the files of a page or a garbage
// collection, is over before anything is refused.

/** A request that comes in while others are served waits for about a turn. */
const TURN_MS_MAX = 25;
/** So long turns without a short one between them, before anything is refused. */
const SUSTAINED_MS = 250;
/** Without a long turn and without a refusal for so long, it is over. */
const CALM_MS = 1000;
/** In every stretch of TURN_MS_MAX some requests are taken, even when refusing alone is too much work. */
const TAKING_MS_MIN = 1;
/**
 * Of a long turn, what the requests that it took used at once. Where it was less, something else made the turn long, and
 * refusing more would not help.
 */
const TAKEN_MS_MIN = 3;
/** Of what the parties of a turn had on average. */
const FAIR = 0.5;
/** What is left of what was taken, at the end of a turn. */
const REMEMBERED = 0.25;
/** What a party may have had taken: at least a request every fourth turn. */
const LEVEL_MIN = 1 / 256;
/** No turn has so much: everything is taken. */
const LEVEL_MAX = 100_000;
const SHRINK = 0.5;
const GROW = 1.05;
/** Above what there can be: three kinds for each API key. */
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

/** Whose share a request takes from, and how much. Each is asked only where it matters. */
export interface Claim {
  party(): string;
  /** In requests of the usual size. */
  cost(): number;
}

export interface Admission {
  /** Whether to take the request. */
  admits(claim?: Claim): boolean;
  /** Does at once what a request that was taken causes. */
  taking(work: () => void): void;
}

const ANYONE: Claim = { party: () => '', cost: () => 1 };

interface Party {
  /** What was taken of it up to a turn; less of what was taken in earlier ones. */
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
  /** The last long turn, or refusal. */
  let troubleAtMs = 0;
  const parties = new Map<string, Party>();
  /** Those of this turn. */
  let present: Party[] = [];
  /** Below it no party of this turn is refused anything. */
  let fair = 0;
  /** Of this turn, what was taken kept the event loop busy for. */
  let takenMs = 0;

  function grow(turns: number): void {
    level *= GROW ** turns;
    if (level > LEVEL_MAX) level = Number.POSITIVE_INFINITY;
  }

  function beginTurn(nowMs: number): void {
    const idleMs = Math.max(0, nowMs - endedAtMs);
    if (idleMs > TURN_MS_MAX) longSinceMs = undefined;
    if (nowMs - troubleAtMs > CALM_MS) level = Number.POSITIVE_INFINITY;
    // Without requests there are no turns: the time counts as short ones.
    else if (level < Number.POSITIVE_INFINITY) grow(idleMs / TURN_MS_MAX);
    const isSustained = longSinceMs !== undefined && nowMs - longSinceMs >= SUSTAINED_MS;
    // Asking for the CPU time takes a microsecond: only where there is something to decide.
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
