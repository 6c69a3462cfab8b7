// A decline names the account that it is about, as one of its versions was, and there the operation was not allowed.
import { AMOUNT_MAX } from '../accounts.ts';
import type { AccountState, Declined, Operation } from '../history.ts';
import type { Cases, CheckInput, PossiblePolicies, Violation } from './evidence.ts';
import { policiesOf, statesOf } from './evidence.ts';
import { type HoldLife, type HoldLives, lifeAt } from './hold-lives.ts';

export function checkDeclines(input: CheckInput, cases: Cases, lives: HoldLives): Violation[] {
  const violations: Violation[] = [];
  const policies = policiesOf(input.history);
  const stateAt = statesOf(input.final);
  for (const { operation, remembered, startMs, endMs } of cases.byId.values()) {
    const declined = remembered.find(({ result }) => result.kind === 'declined')?.result;
    if (declined?.kind !== 'declined') continue;
    const { accountId, balance, version } = declined;
    const report = (what: string) =>
      violations.push({ check: 'declines', accountId, atMs: startMs, what: `${operation.id}: ${what}` });
    const real = stateAt(accountId, version);
    if (real?.balance !== balance)
      report(`was declined with balance ${balance} at version ${version}; it was ${real?.balance}`);
    if (!real) continue;
    const hold = lifeAt(lives, operation.legs[0].accountId, operation.hold?.holdId, version);
    if (isAllowed(operation, declined, real, policies(accountId, { startMs, endMs }), hold))
      report(`was declined as ${declined.code}, and ${JSON.stringify(real)} allowed it`);
  }
  return violations;
}

/** Whether what it was declined for did not hold. */
function isAllowed(
  operation: Operation,
  declined: Declined,
  real: AccountState,
  { limitMin, ceilingMin }: PossiblePolicies,
  hold: HoldLife | undefined,
): boolean {
  const { code, accountId, balance } = declined;
  if (operation.kind === 'atomic') return isEachCovered(operation, declined, real);
  // A capture never fails for want of funds, and no highest balance keeps money from coming back.
  if (operation.kind === 'capture' && code === 'insufficient_funds') return true;
  if (operation.kind === 'reversal' && code === 'max_balance_exceeded') return true;
  const amount = amountOf(operation, accountId, hold);
  if (amount === undefined) return false;
  const after = balance + amount;
  switch (code) {
    case 'balance_out_of_range':
      return Math.abs(after) <= AMOUNT_MAX;
    case 'max_balance_exceeded':
      return amount < 0 || after <= Math.max(ceilingMin, real.maxBalance ?? Infinity);
    case 'insufficient_funds':
      return amount > 0 || after - real.held >= -Math.min(limitMin, real.overdraftLimit);
    case 'hold_amount_exceeded':
      if (!hold) return false;
      return operation.kind === 'hold change'
        ? hold.remaining + ((operation.amount ?? hold.amount) - hold.amount) > 0
        : (operation.amount ?? 0) <= hold.remaining;
    case 'reversal_exceeds': // see reversals.ts
    case 'version_mismatch': // see conditions.ts
      return false;
  }
}

/** What it takes from an account's funds, or gives; undefined: that depends on what the suite does not know. */
function amountOf({ kind, legs, amount }: Operation, accountId: string, hold?: HoldLife): number | undefined {
  if (kind === 'hold change') return hold && hold.amount - (amount ?? hold.amount);
  // It takes what is there, so there was nothing.
  if (kind === 'update' && amount !== undefined) return -1;
  return legs.find((leg) => leg.accountId === accountId)?.amount ?? undefined;
}

/** In an atomic bulk an update finds what those before it left, though the answer shows the account without them. */
function isEachCovered({ legs }: Operation, declined: Declined, real: AccountState): boolean {
  let moved = 0;
  for (const { accountId, amount } of legs) {
    if (accountId !== declined.accountId) continue;
    if (!isCovered(real, moved + (amount ?? 0), declined)) return false;
    moved += amount ?? 0;
  }
  return true;
}

function isCovered(
  { balance, held, overdraftLimit, maxBalance }: AccountState,
  moved: number,
  { code }: Declined,
): boolean {
  const after = balance + moved;
  if (code === 'balance_out_of_range') return Math.abs(after) <= AMOUNT_MAX;
  if (code === 'max_balance_exceeded') return after <= (maxBalance ?? Infinity);
  return after - held >= -overdraftLimit;
}
