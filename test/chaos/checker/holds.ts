// Holds: each life follows from its entries, what is held is the sum of the active ones after every entry, nothing is done to
// one that is due, and every one that is due has its expiry written, by the next entry of the account or by the sweep.
import type { Entry } from '../final-state.ts';
import type { CheckInput, Violation } from './evidence.ts';
import type { HoldLife, HoldLives } from './hold-lives.ts';

/** The sweep comes each second, and the event of what it wrote has to reach the ledger. */
const SWEEP_MS_MAX = 10_000;
/** A statement that waited for its account looked for due holds before it waited: for as long as a statement may take. */
const STATEMENT_MS_MAX = 3500;

export function checkHolds(input: CheckInput, { lives, wrong }: HoldLives): Violation[] {
  return [
    ...wrong.map(({ entry, what }) =>
      violation(entry.accountId, `version ${entry.version} of ${entry.holdId} ${what}`),
    ),
    ...[...input.final.ledger.values()].flatMap((entries) => checkHeld(entries, lives)),
    ...checkLast(input, lives),
  ];
}

function violation(accountId: string, what: string): Violation {
  return { check: 'holds', accountId, what };
}

/** After every entry of one account. */
function checkHeld(entries: readonly Entry[], lives: HoldLives['lives']): Violation[] {
  const violations: Violation[] = [];
  const active = new Map<string, HoldLife>();
  let sum = 0;
  for (const { accountId, version, held, holdId, createdAt, type } of entries) {
    const life =
      holdId === null ? undefined : lives.get(`${accountId} ${holdId}`)?.find((one) => one.version === version);
    if (life) {
      sum += life.remaining - (active.get(life.holdId)?.remaining ?? 0);
      if (life.status === 'active') active.set(life.holdId, life);
      else active.delete(life.holdId);
    }
    if (held !== sum)
      violations.push(violation(accountId, `version ${version} holds ${held}, its active holds ${sum}`));
    if (type === 'hold.expired' || active.size === 0) continue;
    const due = [...active.values()].find((one) => isPast(one.expiresAt, createdAt, STATEMENT_MS_MAX));
    if (due)
      violations.push(violation(accountId, `version ${version} found ${due.holdId}, due since ${due.expiresAt}`));
  }
  return violations;
}

/** The table is what the entries left, and what was due long ago is not active any more. */
function checkLast({ final }: CheckInput, lives: HoldLives['lives']): Violation[] {
  const violations: Violation[] = [];
  for (const [name, hold] of final.holds) {
    const accountId = name.slice(0, name.indexOf(' '));
    const life = lives.get(name)?.at(-1);
    const isSame = MEMBERS.every((member) => life?.[member] === hold[member]);
    const createdAt = lives.get(name)?.[0]?.updatedAt;
    if (!isSame || createdAt !== hold.createdAt)
      violations.push(
        violation(accountId, `the hold is ${JSON.stringify(hold)}, by its entries ${JSON.stringify(life)}`),
      );
    if (hold.status === 'active' && isPast(hold.expiresAt, final.readAt, SWEEP_MS_MAX))
      violations.push(violation(accountId, `${hold.holdId} is due since ${hold.expiresAt}, and no entry says so`));
  }
  for (const [name, [life]] of lives) {
    if (final.holds.has(name) || !life) continue;
    violations.push(violation(life.accountId, `${life.holdId} has entries, and is no hold`));
  }
  return violations;
}

const MEMBERS = ['status', 'amount', 'captured', 'remaining', 'expiresAt', 'updatedAt'] as const;

function isPast(expiresAt: string | null, at: string, byMs: number): boolean {
  return expiresAt !== null && Date.parse(at) - Date.parse(expiresAt) > byMs;
}
