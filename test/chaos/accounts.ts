// The accounts of a run: two that every client wants, some that are busy, some with money, many that are rarely touched, one
// near the end of the range, two with a highest balance, and two whose limits and status change all the time.
import type { Random } from './random.ts';

export const AMOUNT_MAX = 9_007_199_254_740_991;

/** The clients behind the API keys. They use the same idempotency keys, and must not meet. */
export const ACTORS = ['shop', 'game'] as const;
export type Actor = (typeof ACTORS)[number];
/** Of each actor, its API key. */
export type Tokens = Readonly<Record<Actor, string>>;

export interface AccountLimits {
  overdraftLimit: number;
  maxBalance: number | null;
}

export interface WantedAccount extends AccountLimits {
  asset: string;
}

export const RICH_ACCOUNT = 'rich';
export const POLICY_ACCOUNTS = ['policy-0', 'policy-1'];
/** A policy account has one overdraft limit or the other, and one highest balance or the other. */
export const POLICY_LIMITS = { overdraftLimit: [0, 400], maxBalance: [20, 100_000] } as const;

const numbered = (name: string, count: number) => Array.from({ length: count }, (_, number) => `${name}-${number}`);
const HOT = numbered('hot', 2);
const WARM = numbered('warm', 10);
/** These earn more than they spend, so that holds and transfers find something. */
const WALLETS = numbered('wallet', 8);
const COLD = numbered('cold', 200);
const CAPPED = numbered('capped', 2);
const CAPPED_MAX = 150;

const wanted = (more: Partial<WantedAccount> = {}): WantedAccount => ({
  ...{ asset: 'UNIT', overdraftLimit: 0, maxBalance: null },
  ...more,
});

/** Every account that is there from the start, as it is opened. */
export const ACCOUNTS: ReadonlyMap<string, WantedAccount> = new Map([
  ...HOT.map((id, number) => [id, wanted({ overdraftLimit: number * 500 })] as const),
  ...WARM.map((id, number) => [id, wanted({ overdraftLimit: number * 100, asset: 'USD/2' })] as const),
  ...WALLETS.map((id) => [id, wanted({ overdraftLimit: 300 })] as const),
  ...CAPPED.map((id) => [id, wanted({ maxBalance: CAPPED_MAX })] as const),
  ...[...COLD, RICH_ACCOUNT, ...POLICY_ACCOUNTS].map((id) => [id, wanted()] as const),
]);

export function pickAccount(random: Random): string {
  const draw = random();
  if (draw < 0.4) return random.pick(HOT);
  if (draw < 0.65) return random.pick(WARM);
  if (draw < 0.75) return random.pick(WALLETS);
  if (draw < 0.85) return random.pick(COLD);
  if (draw < 0.9) return random.pick(CAPPED);
  return draw < 0.93 ? RICH_ACCOUNT : random.pick(POLICY_ACCOUNTS);
}

/** Debits outweigh credits, so that balances keep meeting their limit; where credits meet one, it is the other way. */
export function pickAmount(random: Random, accountId: string): number {
  const isMany = random.chance(0.5);
  const amount = isMany ? -random.between(1, 70) : random.between(1, 50);
  return accountId === RICH_ACCOUNT || CAPPED.includes(accountId) || WALLETS.includes(accountId) ? -amount : amount;
}

/** Where money is set aside. */
export function pickHolder(random: Random): string {
  const draw = random();
  if (draw < 0.1) return random.pick(POLICY_ACCOUNTS);
  return draw < 0.6 ? random.pick(WALLETS) : pickAccount(random);
}

/** Who is to get what is captured: some have no room for it. */
export function pickReceiver(random: Random): string {
  return random.chance(0.4) ? random.pick(CAPPED) : (pickPeers(random, 1)[0] as string);
}

const PEERS = [...HOT, ...WALLETS, ...WALLETS, ...COLD.slice(0, 10), ...CAPPED, ...POLICY_ACCOUNTS, RICH_ACCOUNT];
const STRANGERS_CHANCE = 0.03;

/** Different accounts that count the same asset, or rarely not. */
export function pickPeers(random: Random, count: number): string[] {
  const peers = random.chance(STRANGERS_CHANCE) ? [...PEERS, ...WARM] : random.chance(0.25) ? WARM : PEERS;
  return [...new Set(random.shuffled(peers))].slice(0, count);
}
