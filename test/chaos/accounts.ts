// The accounts of a run: two that everybody wants, some that are busy, many that are rarely touched, one near the end of
// the range, and two whose limit and status change all the time.
import type { Random } from './random.ts';

export const AMOUNT_MAX = 9_007_199_254_740_991;

export const RICH_ACCOUNT = 'rich';
export const POLICY_ACCOUNTS = ['policy-0', 'policy-1'];
/** The largest overdraft limit that a policy account ever gets. */
export const POLICY_LIMIT = 400;

const numbered = (name: string, count: number) => Array.from({ length: count }, (_, number) => `${name}-${number}`);
const HOT = numbered('hot', 2);
const WARM = numbered('warm', 10);
const COLD = numbered('cold', 200);

/** Every account that is there from the start, with its overdraft limit. */
export const ACCOUNTS: ReadonlyMap<string, number> = new Map([
  ...HOT.map((id, number) => [id, number * 500] as const),
  ...WARM.map((id, number) => [id, number * 100] as const),
  ...[...COLD, RICH_ACCOUNT, ...POLICY_ACCOUNTS].map((id) => [id, 0] as const),
]);

export function pickAccount(random: Random): string {
  const draw = random();
  if (draw < 0.45) return random.pick(HOT);
  if (draw < 0.75) return random.pick(WARM);
  if (draw < 0.9) return random.pick(COLD);
  return draw < 0.93 ? RICH_ACCOUNT : random.pick(POLICY_ACCOUNTS);
}

/** Debits outweigh credits, so that balances keep meeting their limit; where credits meet one, it is the other way. */
export function pickAmount(random: Random, accountId: string): number {
  const isMany = random.chance(0.5);
  const amount = isMany ? -random.between(1, 70) : random.between(1, 50);
  return accountId === RICH_ACCOUNT ? -amount : amount;
}
