// Decides which requests are accepted when more arrive than the event loop can serve. Without it,
// every answer would come later and later: a request waits in its socket for all others that are
// ready, again at each step.
//
// How long that is shows in the turns of the event loop. While they are long, each party (a client, with one kind of
// requests) has so much taken in a turn, and what it sends beyond that is refused at once, which costs a fifth. How much is
// the same for all: it is halved after a long turn and grows slowly after a short one and while nothing comes, so that turns
// stay near the limit under any load and on any machine, and a party that sends less has nothing refused.
//
// A turn is long by the CPU time that it took, not by the clock: if the process itself waits for a
// CPU, refusing does not help. One long turn alone, such as a garbage collection, refuses nothing.

/** A request that comes in while others are served waits for about a turn. */
const TURN_MS_MAX = 25;
/** In every stretch of TURN_MS_MAX some requests are taken, even when refusing alone is too much work. */
const TAKING_MS_MIN = 1;
/** Where what is taken in a turn takes no longer, it is not that which makes the turn long: refusing more of it would not help. */
const TAKEN_MS_MIN = 5;
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

/** @returns whether to take the request. */
export type Admission = (claim?: Claim) => boolean;

const ANYONE: Claim = { party: () => '', cost: () => 1 };

export function createAdmission(clock: Clock = eventLoop): Admission {
  let level = Number.POSITIVE_INFINITY;
  let turn: { startedAtMs: number; startedAtCpuMs: number | undefined } | undefined;
  let turns = 0;
  let wasLong = false;
  let endedAtMs = 0;
  /** What was taken of each party up to a turn. */
  const parties = new Map<string, { taken: number; turn: number }>();
  /** The most of one party in this turn. */
  let most = 0;
  /** How long what was taken as a share has kept the event loop in this turn: each until the next request, or the end. */
  let takenMs = 0;
  let takenAtMs: number | undefined;

  function endTaking(nowMs: number): void {
    if (takenAtMs !== undefined) takenMs += nowMs - takenAtMs;
    takenAtMs = undefined;
  }

  function grow(turns: number): void {
    level *= GROW ** turns;
    if (level > LEVEL_MAX) level = Number.POSITIVE_INFINITY;
  }

  function endTurn(): void {
    if (!turn) return;
    const { startedAtMs, startedAtCpuMs } = turn;
    turn = undefined;
    turns += 1;
    endedAtMs = clock.now();
    endTaking(endedAtMs);
    wasLong = endedAtMs - startedAtMs > TURN_MS_MAX;
    const cpuMs = startedAtCpuMs === undefined ? 0 : clock.cpuMs() - startedAtCpuMs;
    if (cpuMs > TURN_MS_MAX && takenMs > TAKEN_MS_MIN) {
      const shrink = Math.max(SHRINK, TAKEN_MS_MIN / takenMs);
      level = Math.max(LEVEL_MIN, Math.min(level, most) * shrink);
    } else grow(1);
    takenMs = 0;
    most = 0;
  }

  function isWithinShare(claim: Claim): boolean {
    const name = claim.party();
    let party = parties.get(name);
    if (!party) {
      if (parties.size >= PARTIES_MAX) parties.clear();
      party = { taken: 0, turn: turns };
      parties.set(name, party);
    }
    party.taken *= REMEMBERED ** (turns - party.turn);
    party.turn = turns;
    if (party.taken >= level) return false;
    party.taken += claim.cost();
    most = Math.max(most, party.taken);
    return true;
  }

  return (claim = ANYONE) => {
    const nowMs = clock.now();
    if (!turn) {
      // Without requests there are no turns: the time counts as short ones.
      if (level < Number.POSITIVE_INFINITY) grow(Math.max(0, nowMs - endedAtMs) / TURN_MS_MAX);
      // Asking for the CPU time takes a microsecond: only where there is something to decide.
      const isWatching = wasLong || level < Number.POSITIVE_INFINITY;
      turn = { startedAtMs: nowMs, startedAtCpuMs: isWatching ? clock.cpuMs() : undefined };
      clock.atEndOfTurn(endTurn);
    }
    if (turn.startedAtCpuMs === undefined) return true;
    endTaking(nowMs);
    if (isWithinShare(claim)) {
      takenAtMs = nowMs;
      return true;
    }
    return (nowMs - turn.startedAtMs) % TURN_MS_MAX <= TAKING_MS_MIN;
  };
}
