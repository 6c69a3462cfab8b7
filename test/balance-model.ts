// A plain in-memory model of the service: what its changes mean, one at a time, in the obvious way. The property test holds
// the SQL functions against it.

export const AMOUNT_MAX = 9_007_199_254_740_991n;

export interface ModelUpdate {
  accountId: string;
  amount: bigint;
  reference: string | null;
  actor: string | null;
  key: string | null;
}

export interface ModelResult {
  outcome: string;
  replayed: boolean;
  balance: bigint | null;
  version: bigint | null;
  /** Of what was applied. */
  epoch: bigint | null;
  /** Milliseconds. */
  createdAt: number | null;
}

/** When a batch was decided, by what the database said of it. */
export interface ModelNow {
  epoch: bigint;
  /** Milliseconds. */
  time: number;
}

export interface ModelLimits {
  overdraftLimit: bigint;
  maxBalance: bigint | null;
  status: 'open' | 'frozen' | 'closed';
}

interface ModelAccount extends ModelLimits {
  balance: bigint;
  version: bigint;
  epoch: bigint;
  updatedAt: number;
}

export interface ModelChange {
  accountId: string;
  version: bigint;
  epoch: bigint;
  previousEpoch: bigint | null;
  type: string;
  amount: bigint;
  balance: bigint;
  reference: string | null;
  actor: string | null;
  limits: ModelLimits | null;
  createdAt: number;
}

export class BalanceModel {
  readonly accounts = new Map<string, ModelAccount>();
  /** Every change, in the order of acceptance. */
  readonly changes: ModelChange[] = [];
  readonly #answers = new Map<string, { update: ModelUpdate; result: ModelResult }>();

  open(accountId: string, limits: Omit<ModelLimits, 'status'>, now: ModelNow): void {
    const account = {
      ...limits,
      status: 'open' as const,
      balance: 0n,
      version: 0n,
      epoch: now.epoch,
      updatedAt: now.time,
    };
    this.accounts.set(accountId, account);
    this.#note(accountId, account, null, { type: 'account.opened', amount: 0n, reference: null, actor: null });
  }

  /** @returns what change_account says of it. */
  change(accountId: string, change: Partial<ModelLimits>, now: ModelNow): string {
    const account = this.accounts.get(accountId);
    if (!account) return 'account_not_found';
    const { overdraftLimit, maxBalance, status } = account;
    const wanted = { overdraftLimit, maxBalance, status, ...change };
    if (wanted.overdraftLimit === overdraftLimit && wanted.maxBalance === maxBalance && wanted.status === status) {
      return 'unchanged';
    }
    if (status === 'closed') return 'account_closed';
    if (account.balance < -wanted.overdraftLimit) return 'overdraft_limit_too_low';
    if (wanted.status === 'closed' && account.balance !== 0n) return 'account_not_empty';
    Object.assign(account, wanted);
    const before = this.#advance(account, now);
    this.#note(accountId, account, before, { type: 'account.changed', amount: 0n, reference: null, actor: null });
    return 'changed';
  }

  apply(update: ModelUpdate, now: ModelNow): ModelResult {
    const scope = JSON.stringify([update.accountId, update.actor, update.key]);
    const known = update.key === null ? undefined : this.#answers.get(scope);
    if (known) {
      const same = known.update.amount === update.amount && known.update.reference === update.reference;
      return same ? { ...known.result, replayed: true } : notRemembered('idempotency_key_reused');
    }
    const account = this.accounts.get(update.accountId);
    if (!account) return notRemembered('account_not_found');
    if (account.status !== 'open') return notRemembered(`account_${account.status}`);
    const result = this.#decide(account, update, now);
    if (update.key !== null) this.#answers.set(scope, { update, result });
    return result;
  }

  #decide(account: ModelAccount, { accountId, amount, reference, actor }: ModelUpdate, now: ModelNow): ModelResult {
    const after = account.balance + amount;
    const { overdraftLimit, maxBalance } = account;
    let outcome = 'applied';
    if (after > AMOUNT_MAX || after < -AMOUNT_MAX) outcome = 'balance_out_of_range';
    else if (amount > 0n && maxBalance !== null && after > maxBalance) outcome = 'max_balance_exceeded';
    else if (amount < 0n && after < -overdraftLimit) outcome = 'insufficient_funds';
    if (outcome === 'applied') {
      account.balance = after;
      const before = this.#advance(account, now);
      const type = amount > 0n ? 'balance.credited' : 'balance.debited';
      this.#note(accountId, account, before, { type, amount, reference, actor });
    }
    const epoch = outcome === 'applied' ? account.epoch : null;
    const createdAt = Math.max(now.time, account.updatedAt);
    return { outcome, replayed: false, balance: account.balance, version: account.version, epoch, createdAt };
  }

  /** @returns the epoch before. */
  #advance(account: ModelAccount, { epoch, time }: ModelNow): bigint {
    const before = account.epoch;
    account.version += 1n;
    if (epoch > account.epoch) account.epoch = epoch;
    account.updatedAt = Math.max(time, account.updatedAt);
    return before;
  }

  #note(
    accountId: string,
    { balance, version, epoch, updatedAt, overdraftLimit, maxBalance, status }: ModelAccount,
    previousEpoch: bigint | null,
    what: Pick<ModelChange, 'type' | 'amount' | 'reference' | 'actor'>,
  ): void {
    const limits = what.type.startsWith('account.') ? { overdraftLimit, maxBalance, status } : null;
    this.changes.push({ accountId, version, epoch, previousEpoch, ...what, balance, limits, createdAt: updatedAt });
  }
}

function notRemembered(outcome: string): ModelResult {
  return { outcome, replayed: false, balance: null, version: null, epoch: null, createdAt: null };
}
