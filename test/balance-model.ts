// A plain in-memory model of the service: what balance updates mean, one at a time, in the obvious way. The property
// test holds the SQL function against it.

export const AMOUNT_MAX = 9_007_199_254_740_991n;

export interface ModelUpdate {
  accountId: string;
  amount: bigint;
  reference: string | null;
  key: string | null;
}

export interface ModelResult {
  outcome: string;
  replayed: boolean;
  balance: bigint | null;
  version: bigint | null;
  /** Milliseconds. */
  createdAt: number | null;
}

interface ModelAccount {
  balance: bigint;
  version: bigint;
  overdraftLimit: bigint;
  frozen: boolean;
  updatedAt: number;
}

export interface ModelChange {
  accountId: string;
  version: bigint;
  amount: bigint;
  balance: bigint;
  reference: string | null;
  createdAt: number;
}

export class BalanceModel {
  readonly accounts = new Map<string, ModelAccount>();
  /** Every accepted change, in the order of acceptance. */
  readonly changes: ModelChange[] = [];
  readonly #answers = new Map<string, { update: ModelUpdate; result: ModelResult }>();

  create(accountId: string, overdraftLimit: bigint, now: number): void {
    this.accounts.set(accountId, { balance: 0n, version: 0n, overdraftLimit, frozen: false, updatedAt: now });
  }

  apply(update: ModelUpdate, now: number): ModelResult {
    const slot = JSON.stringify([update.accountId, update.key]);
    const known = update.key === null ? undefined : this.#answers.get(slot);
    if (known) {
      const same = known.update.amount === update.amount && known.update.reference === update.reference;
      return same ? { ...known.result, replayed: true } : notRemembered('idempotency_key_reused');
    }
    const account = this.accounts.get(update.accountId);
    if (!account) return notRemembered('account_not_found');
    if (account.frozen) return notRemembered('account_frozen');
    const result = this.#decide(account, update, now);
    if (update.key !== null) this.#answers.set(slot, { update, result });
    return result;
  }

  #decide(account: ModelAccount, { accountId, amount, reference }: ModelUpdate, now: number): ModelResult {
    const createdAt = Math.max(now, account.updatedAt);
    const after = account.balance + amount;
    const unchanged = { replayed: false, balance: account.balance, version: account.version, createdAt };
    if (after > AMOUNT_MAX || after < -AMOUNT_MAX) return { outcome: 'balance_out_of_range', ...unchanged };
    if (amount < 0n && after < -account.overdraftLimit) return { outcome: 'insufficient_funds', ...unchanged };
    account.balance = after;
    account.version += 1n;
    account.updatedAt = createdAt;
    this.changes.push({ accountId, version: account.version, amount, balance: after, reference, createdAt });
    return { outcome: 'applied', replayed: false, balance: after, version: account.version, createdAt };
  }
}

function notRemembered(outcome: string): ModelResult {
  return { outcome, replayed: false, balance: null, version: null, createdAt: null };
}
