// What answers say of holds: each hold that one shows is one of the states of its life, and none that was over before the request
// began or that came after it; and what is called closed, expired or missing was so.
import type { Attempt, HoldReading } from '../history.ts';
import type { Cases, CheckInput, Violation } from './evidence.ts';
import { type HoldLife, type HoldLives, lifeAt } from './hold-lives.ts';

export function checkHoldAnswers({ history }: CheckInput, cases: Cases, lives: HoldLives): Violation[] {
  const violations: Violation[] = [];
  for (const reading of history.holdReadings) {
    const life = lives.lives.get(`${reading.accountId} ${reading.state.holdId}`) ?? [];
    const what = wrongInReading(reading, life, cases);
    if (what) violations.push({ check: 'holds', accountId: reading.accountId, atMs: reading.startMs, what });
  }
  for (const { attempts } of cases.byId.values()) {
    for (const attempt of attempts) {
      const what = wrongInAnswer(attempt, lives);
      const { accountId } = attempt.operation.legs[0];
      if (what) violations.push({ check: 'holds', accountId, atMs: attempt.startMs, what });
    }
  }
  return violations;
}

function wrongInReading(
  { state, startMs, endMs }: HoldReading,
  life: readonly HoldLife[],
  { byId }: Cases,
): string | undefined {
  const shown = `an answer shows ${JSON.stringify(state)}`;
  const [first] = life;
  if (state.createdAt !== first?.updatedAt) return `${shown}; it is ${JSON.stringify(first)}`;
  // Two changes within a millisecond may leave the same.
  const places = [...life.keys()].filter((place) => isSame(life[place] as HoldLife, state));
  if (places.length === 0) return `${shown}; it was never so`;
  const caseOf = (place: number) => byId.get(life[place]?.reference ?? '');
  const isTimely = (place: number) =>
    (caseOf(place)?.startMs ?? 0) <= endMs && (caseOf(place + 1)?.endMs ?? Infinity) >= startMs;
  return places.some(isTimely) ? undefined : `${shown}, as it was at another time`;
}

function isSame(life: HoldLife, state: HoldReading['state']): boolean {
  return (['status', 'amount', 'captured', 'remaining', 'expiresAt', 'updatedAt'] as const).every(
    (member) => life[member] === state[member],
  );
}

function wrongInAnswer({ operation, result }: Attempt, lives: HoldLives): string | undefined {
  const { id, kind, hold, legs } = operation;
  if (!hold) return undefined;
  const life = lives.lives.get(`${legs[0].accountId} ${hold.holdId}`);
  if (result.kind === 'refused') {
    const last = life?.at(-1)?.status;
    const isClosed = last === 'captured' || last === 'released';
    if (result.code === 'hold_not_found' && kind !== 'hold') return `${id}: the hold was there, and was not found`;
    if (result.code === 'hold_closed' && !isClosed) return `${id}: the hold is ${last}, and was called closed`;
    if (result.code === 'hold_expired' && last !== 'expired')
      return `${id}: the hold is ${last}, and was called expired`;
    if (result.code === 'hold_exists') return `${id}: nobody else placed that hold`;
  }
  if (result.kind !== 'applied' || kind === 'hold') return undefined;
  // The hold after it, in a first answer and in every other.
  const [leg] = result.legs;
  const after = leg && lifeAt(lives, legs[0].accountId, hold.holdId, leg.version);
  if (after?.version === leg?.version && after && result.hold && isSame(after, result.hold)) return undefined;
  return `${id}: was answered ${JSON.stringify(result.hold)}; by its entry it is ${JSON.stringify(after)}`;
}
