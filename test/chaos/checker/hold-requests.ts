// Each entry of a hold does what its request asked for, no more and no less: how much was set aside, captured, freed or left, and
// until when.
import type { Entry } from '../final-state.ts';
import type { Operation } from '../history.ts';
import type { Cases, CheckInput, Violation } from './evidence.ts';
import { type HoldLife, type HoldLives, lifeAt } from './hold-lives.ts';

/** An entry has the later of the clock and the time of the one before; a hold expires by the clock. */
const CLOCK_MS_MAX = 2000;

export function checkHoldRequests({ final }: CheckInput, { byId }: Cases, lives: HoldLives): Violation[] {
  const violations: Violation[] = [];
  for (const [accountId, entries] of final.ledger) {
    for (const entry of entries) {
      const operation = byId.get(entry.reference ?? '')?.operation;
      if (entry.holdId === null || operation?.hold?.holdId !== entry.holdId) continue; // see asked-for.ts
      const after = lifeAt(lives, accountId, entry.holdId, entry.version);
      const before = lifeAt(lives, accountId, entry.holdId, entry.version - 1);
      if (!after || isAsAsked(operation, before, after, entry)) continue;
      const what = `${operation.id}: ${JSON.stringify(operation)} made of ${JSON.stringify(before)}: ${JSON.stringify(after)}`;
      violations.push({ check: 'holds', accountId, what });
    }
  }
  return violations;
}

function isAsAsked(operation: Operation, before: HoldLife | undefined, after: HoldLife, entry: Entry): boolean {
  const { kind, amount, hold } = operation;
  const { isFinal = true, expiresInSeconds } = hold ?? {};
  const { createdAt, heldChange } = entry;
  const isUntil = isRightExpiry(expiresInSeconds, createdAt, after.expiresAt);
  switch (kind) {
    case 'hold':
      return after.amount === amount && isUntil;
    case 'hold change':
      return (
        after.amount === (amount ?? before?.amount) &&
        (expiresInSeconds === undefined ? after.expiresAt === before?.expiresAt : isUntil)
      );
    case 'release':
      return heldChange === -(amount ?? before?.remaining ?? 0);
    default: {
      const captured = amount ?? before?.remaining ?? 0;
      return entry.amount === -captured && (isFinal ? after.remaining === 0 : heldChange === -captured);
    }
  }
}

function isRightExpiry(seconds: number | null | undefined, createdAt: string, expiresAt: string | null): boolean {
  if (seconds === null || seconds === undefined) return expiresAt === null;
  const lateMs = Date.parse(createdAt) + seconds * 1000 - Date.parse(expiresAt ?? '');
  return lateMs >= 0 && lateMs < CLOCK_MS_MAX;
}
