// A plain in-memory model of the service: what its operations mean, one at a time, in the obvious
// way. The property test holds the SQL functions against it.
import type { HoldState, LegResult, Operation, OperationResult } from '../../src/api/updates/operation.ts';
import { eventId } from '../../src/shared/change.ts';

export const AMOUNT_MAX = Number.MAX_SAFE_INTEGER;

/** When a batch was decided, by what the database said of it. */
export interface ModelNow {
  epoch: number;
  /** Milliseconds. */
  time: number;
}

export interface ModelLimits {
  overdraftLimit: number;
  maxBalance: number | null;
  status: 'open' | 'frozen' | 'closed';
}

interface ModelHold extends HoldState {
  client: string;
  fingerprint: string | null;
}

interface ModelAccount extends ModelLimits {
  asset: string;
  balance: number;
  held: number;
  version: number;
  epoch: number;
  updatedAt: number;
  holds: Map<string, ModelHold>;
}

export interface ModelChange {
  accountId: string;
  version: number;
  epoch: number;
  previousEpoch: number | null;
  type: string;
  amount: number;
  heldChange: number;
  balance: number;
  held: number;
  reference: string | null;
  metadata: string | null;
  actor: string | null;
  transferId: string | null;
  reverses: string | null;
  hold: (Pick<HoldState, 'status' | 'remaining' | 'expiresAt'> & { id: string }) | null;
  limits: ModelLimits | null;
  createdAt: number;
}

/** What of a change is not the account's state. */
type What = Partial<
  Pick<ModelChange, 'amount' | 'heldChange' | 'reference' | 'metadata' | 'actor' | 'transferId' | 'reverses' | 'hold'>
> & { type: string };

const NOT_REMEMBERED = [
  ...[
    'idempotency_key_reused',
    'hold_exists',
    'account_not_found',
    'account_closed',
    'account_frozen',
    'asset_mismatch',
  ],
  ...['hold_not_found', 'hold_closed', 'hold_expired', 'not_reversible', 'already_reversed'],
];
/** The order in which refusals take precedence. */
const PRECEDENCE = [
  ...NOT_REMEMBERED,
  ...['version_mismatch', 'hold_amount_exceeded', 'reversal_exceeds'],
  ...['balance_out_of_range', 'max_balance_exceeded', 'insufficient_funds'],
];

export class BalanceModel {
  readonly accounts = new Map<string, ModelAccount>();
  /** Every change, in the order of acceptance. */
  readonly changes: ModelChange[] = [];
  /** By the id of what was reversed. */
  readonly reversed = new Map<string, number>();
  readonly #answers = new Map<string, { fingerprint: string | null; result: OperationResult }>();
  #now: ModelNow = { epoch: 0, time: 0 };

  open(accountId: string, asset: string, limits: Omit<ModelLimits, 'status'>, now: ModelNow): void {
    this.#now = now;
    const account: ModelAccount = {
      ...{ asset, ...limits, status: 'open', balance: 0, held: 0, version: 0, epoch: now.epoch, updatedAt: now.time },
      holds: new Map(),
    };
    this.accounts.set(accountId, account);
    this.#note(accountId, account, null, { type: 'account.opened' });
  }

  /** @returns what change_account says of it. */
  change(accountId: string, change: Partial<ModelLimits>, now: ModelNow): string {
    this.#now = now;
    const account = this.accounts.get(accountId);
    if (!account) return 'account_not_found';
    this.#expire(accountId);
    const { overdraftLimit, maxBalance, status } = account;
    const wanted = { overdraftLimit, maxBalance, status, ...change };
    if (wanted.overdraftLimit === overdraftLimit && wanted.maxBalance === maxBalance && wanted.status === status) {
      return 'unchanged';
    }
    if (status === 'closed') return 'account_closed';
    if (account.balance - account.held < -wanted.overdraftLimit) return 'overdraft_limit_too_low';
    if (wanted.status === 'closed' && (account.balance !== 0 || account.held !== 0)) return 'account_not_empty';
    Object.assign(account, wanted);
    this.#advance(accountId, account, { type: 'account.changed' });
    return 'changed';
  }

  /** What is due is expired before the first operation, account by account, oldest first. */
  applyAll(operations: readonly Operation[], now: ModelNow): OperationResult[] {
    this.#now = now;
    const ids = new Set(
      operations.flatMap(({ legs, keyAccountId, reversal }) => [
        ...legs.map(({ accountId }) => accountId),
        keyAccountId,
        ...(reversal ? [reversal.accountId] : []),
      ]),
    );
    if (!this.#isLoneRetry(operations)) for (const id of [...ids].sort()) this.#expire(id);
    return operations.map((operation) => this.#apply(operation));
  }

  /** Which is answered before anything else is looked at. */
  #isLoneRetry(operations: readonly Operation[]): boolean {
    const [{ kind, legs, keyAccountId, actor, idempotencyKey }] = operations as [Operation];
    if (operations.length > 1 || kind !== 'update' || idempotencyKey === null) return false;
    if (legs[0].expectedVersion !== null || legs[0].upTo) return false;
    return this.#answers.has(JSON.stringify([keyAccountId, actor, idempotencyKey]));
  }

  #expire(accountId: string): void {
    const account = this.accounts.get(accountId);
    const due = [...(account?.holds ?? [])].filter(
      ([, { status, expiresAt }]) => status === 'active' && expiresAt !== null && expiresAt <= this.#now.time,
    );
    due.sort(
      ([oneId, one], [otherId, other]) =>
        (one.expiresAt as number) - (other.expiresAt as number) || (oneId < otherId ? -1 : 1),
    );
    for (const [id, hold] of due) {
      const heldChange = -hold.remaining;
      const updatedAt = Math.max(this.#now.time, (account as ModelAccount).updatedAt);
      Object.assign(hold, { status: 'expired', remaining: 0, updatedAt });
      (account as ModelAccount).held += heldChange;
      this.#advance(accountId, account as ModelAccount, { type: 'hold.expired', heldChange, hold: ofHold(id, hold) });
    }
  }

  #apply(operation: Operation): OperationResult {
    const { idempotencyKey, keyAccountId, actor, fingerprint } = operation;
    if (idempotencyKey === null) return this.#decide(operation);
    const scope = JSON.stringify([keyAccountId, actor, idempotencyKey]);
    const known = this.#answers.get(scope);
    if (known) {
      if (known.fingerprint !== fingerprint) return { outcome: 'idempotency_key_reused', leg: 0, hold: null };
      return { ...known.result, replayed: true } as OperationResult;
    }
    const result = this.#decide(operation);
    if (!NOT_REMEMBERED.includes(result.outcome)) this.#answers.set(scope, { fingerprint, result });
    return result;
  }

  #decide(operation: Operation): OperationResult {
    switch (operation.kind) {
      case 'update':
      case 'atomic':
        return this.#updates(operation);
      case 'transfer':
      case 'reversal':
      case 'reversal_rest':
        return this.#transfer(operation);
      case 'hold':
        return this.#place(operation);
      default:
        return this.#ofHold(operation);
    }
  }

  /** One after the other; where one fails, as if none had been. */
  #updates({ legs, actor }: Operation): OperationResult {
    const before = new Map(
      [...new Set(legs.map(({ accountId }) => accountId))].map((id) => [id, { ...this.accounts.get(id) }]),
    );
    const changesBefore = this.changes.length;
    const results: LegResult[] = [];
    for (const [number, { accountId, reference, metadata, expectedVersion, upTo, ...leg }] of legs.entries()) {
      const account = this.accounts.get(accountId);
      let amount = leg.amount as number;
      if (account && upTo) amount = Math.min(-1, Math.max(amount, -available(account)));
      const outcome =
        this.#bar(account) ??
        (expectedVersion !== null && account?.version !== expectedVersion ? 'version_mismatch' : undefined) ??
        money(account as ModelAccount, amount);
      if (outcome) {
        for (const [id, state] of before)
          if (this.accounts.has(id)) Object.assign(this.accounts.get(id) as object, state);
        this.changes.length = changesBefore;
        return this.#declined(outcome, number, account, amount);
      }
      (account as ModelAccount).balance += amount;
      const type = amount > 0 ? 'balance.credited' : 'balance.debited';
      results.push(this.#advance(accountId, account as ModelAccount, { type, amount, reference, metadata, actor }));
    }
    return { outcome: 'applied', replayed: false, legs: results, hold: null };
  }

  #transfer({ kind, legs, actor, reversal }: Operation): OperationResult {
    const reversed = reversal ? (this.reversed.get(reversal.id) ?? 0) : 0;
    const rest = (reversal?.original ?? 0) - reversed;
    const wanted = kind === 'reversal_rest' ? rest : Math.abs(legs[0].amount as number);
    const amounts = legs.map(({ amount }) =>
      kind === 'reversal_rest' && legs.length < 3 && rest > 0 ? Math.sign(amount as number) * rest : (amount as number),
    );
    const refusals: [string, number][] = [];
    if (reversal) {
      if (reversal.original === null) refusals.push(['not_reversible', 0]);
      else if (rest === 0) refusals.push(['already_reversed', 0]);
      else if (wanted > rest) refusals.push(['reversal_exceeds', 0]);
    }
    const first = this.accounts.get(legs[0].accountId);
    for (const [number, { accountId }] of legs.entries()) {
      const account = this.accounts.get(accountId);
      const bar = this.#bar(account);
      if (bar) refusals.push([bar, number]);
      else if (first && (account as ModelAccount).asset !== first.asset) refusals.push(['asset_mismatch', number]);
      else {
        const verdict = money(account as ModelAccount, amounts[number] as number, reversal !== undefined);
        if (verdict) refusals.push([verdict, number]);
      }
    }
    if (refusals.length > 0) {
      refusals.sort(([one], [other]) => PRECEDENCE.indexOf(one) - PRECEDENCE.indexOf(other));
      const [outcome, number] = refusals[0] as [string, number];
      return this.#declined(
        outcome,
        number,
        this.accounts.get((legs[number] as (typeof legs)[0]).accountId),
        amounts[number] as number,
      );
    }
    if (reversal) this.reversed.set(reversal.id, reversed + wanted);
    const payer = legs.findIndex((_, number) => (amounts[number] as number) < 0);
    const transferId = legs.length > 1 ? this.#nextId((legs[payer] as (typeof legs)[0]).accountId) : null;
    const results = legs.map(({ accountId, reference, metadata }, number) => {
      const account = this.accounts.get(accountId) as ModelAccount;
      const amount = amounts[number] as number;
      account.balance += amount;
      const type = amount > 0 ? 'balance.credited' : 'balance.debited';
      const reverses = reversal?.id ?? null;
      return this.#advance(accountId, account, { type, amount, reference, metadata, actor, transferId, reverses });
    });
    return { outcome: 'applied', replayed: false, legs: results, hold: null };
  }

  #place({ legs: [leg], hold: target, actor, fingerprint }: Operation): OperationResult {
    const { accountId, amount, reference, metadata } = leg;
    const { holdId, expiresInS } = target as NonNullable<typeof target>;
    const account = this.accounts.get(accountId);
    const known = account?.holds.get(holdId);
    if (known) {
      const isSame = known.client === (actor ?? '') && known.fingerprint === fingerprint;
      if (!isSame) return { outcome: 'hold_exists', leg: 0, hold: null };
      return { outcome: 'applied', replayed: true, legs: [null], hold: stateOf(known) };
    }
    const bar = this.#bar(account);
    if (bar) return this.#declined(bar, 0, account, 0);
    const held = amount as number;
    const { holds } = account as ModelAccount;
    if (held + (account as ModelAccount).held > AMOUNT_MAX)
      return this.#declined('balance_out_of_range', 0, account, held);
    if (held > available(account as ModelAccount)) return this.#declined('insufficient_funds', 0, account, held);
    const time = Math.max(this.#now.time, (account as ModelAccount).updatedAt);
    const hold: ModelHold = {
      ...{ amount: held, captured: 0, remaining: held, status: 'active', client: actor ?? '', fingerprint },
      ...{ expiresAt: expiresInS ? this.#now.time + expiresInS * 1000 : null, createdAt: time, updatedAt: time },
    };
    holds.set(holdId, hold);
    (account as ModelAccount).held += held;
    const what = { type: 'hold.placed', heldChange: held, reference, metadata, actor, hold: ofHold(holdId, hold) };
    const result = this.#advance(accountId, account as ModelAccount, what);
    return { outcome: 'applied', replayed: false, legs: [result], hold: stateOf(hold) };
  }

  #ofHold({ kind, legs, hold: target, actor }: Operation): OperationResult {
    const [{ accountId, amount, reference, metadata }, receiving] = legs;
    const { holdId, expiresInS } = target as NonNullable<typeof target>;
    const account = this.accounts.get(accountId);
    const hold = account?.holds.get(holdId);
    const receiver = receiving && this.accounts.get(receiving.accountId);
    const refusals: [string, number][] = [];
    const bar = this.#bar(account);
    if (bar && !(kind === 'release' && bar === 'account_frozen')) refusals.push([bar, 0]);
    if (receiving) {
      const theirs =
        this.#bar(receiver) ?? (account && receiver?.asset !== account.asset ? 'asset_mismatch' : undefined);
      if (theirs) refusals.push([theirs, 1]);
    }
    const rest = hold?.remaining ?? 0;
    const raise = kind === 'hold_change' ? (amount ?? hold?.amount ?? 0) - (hold?.amount ?? 0) : 0;
    const moved = kind === 'hold_change' ? raise : amount === null ? rest : kind === 'release' ? amount : -amount;
    if (!hold) refusals.push(['hold_not_found', 0]);
    else if (hold.status === 'captured' || hold.status === 'released') refusals.push(['hold_closed', 0]);
    else if (hold.status === 'expired') refusals.push(['hold_expired', 0]);
    else if (kind === 'hold_change' ? rest + raise <= 0 : moved > rest) refusals.push(['hold_amount_exceeded', 0]);
    else if (kind === 'hold_change' && raise + (account as ModelAccount).held > AMOUNT_MAX)
      refusals.push(['balance_out_of_range', 0]);
    else if (kind === 'hold_change' && raise > available(account as ModelAccount))
      refusals.push(['insufficient_funds', 0]);
    else if (receiver) {
      const verdict = money(receiver, moved);
      if (verdict) refusals.push([verdict, 1]);
    }
    if (refusals.length > 0) {
      refusals.sort(([one], [other]) => PRECEDENCE.indexOf(one) - PRECEDENCE.indexOf(other));
      const [outcome, number] = refusals[0] as [string, number];
      const isShown = outcome === 'hold_closed' || outcome === 'hold_expired';
      const declined = this.#declined(
        outcome,
        number,
        number === 1 ? receiver : account,
        number === 1 ? moved : (amount ?? 0),
      );
      return isShown ? ({ ...declined, hold: stateOf(hold as ModelHold) } as OperationResult) : declined;
    }
    const [ours, its] = [account as ModelAccount, hold as ModelHold];
    const time = Math.max(this.#now.time, ours.updatedAt);
    const heldChange = kind === 'hold_change' ? raise : kind === 'capture_final' ? -rest : -moved;
    its.remaining += heldChange;
    ours.held += heldChange;
    its.updatedAt = time;
    if (kind === 'hold_change') {
      its.amount += raise;
      if (expiresInS !== null) its.expiresAt = expiresInS > 0 ? this.#now.time + expiresInS * 1000 : null;
    } else if (kind === 'release') {
      if (its.remaining === 0) its.status = 'released';
    } else {
      its.captured += moved;
      if (its.remaining === 0) its.status = 'captured';
    }
    const isCapture = kind === 'capture' || kind === 'capture_final';
    const transferId = receiving ? this.#nextId(accountId) : null;
    if (isCapture) ours.balance -= moved;
    const type = isCapture ? 'balance.debited' : kind === 'release' ? 'hold.released' : 'hold.changed';
    const what = { type, heldChange, reference, metadata, actor, transferId, hold: ofHold(holdId, its) };
    const results = [this.#advance(accountId, ours, isCapture ? { ...what, amount: -moved } : what)];
    if (receiving && receiver) {
      receiver.balance += moved;
      const { reference: its, metadata: theirs } = receiving;
      results.push(
        this.#advance(receiving.accountId, receiver, {
          ...{ type: 'balance.credited', amount: moved, reference: its, metadata: theirs, actor, transferId },
        }),
      );
    }
    return { outcome: 'applied', replayed: false, legs: results, hold: stateOf(its) };
  }

  #bar(account: ModelAccount | undefined): string | undefined {
    if (!account) return 'account_not_found';
    return account.status === 'open' ? undefined : `account_${account.status}`;
  }

  #declined(outcome: string, leg: number, account: ModelAccount | undefined, amount: number): OperationResult {
    if (NOT_REMEMBERED.includes(outcome)) return { outcome, leg, hold: null } as OperationResult;
    const { balance, version, epoch, updatedAt } = account as ModelAccount;
    const createdAt = new Date(Math.max(this.#now.time, updatedAt)).toISOString();
    return { outcome, replayed: false, leg, found: { amount, balance, version, epoch, createdAt } } as OperationResult;
  }

  #nextId(accountId: string): string {
    const { version, epoch } = this.accounts.get(accountId) as ModelAccount;
    return eventId({ accountId, version: version + 1, epoch: Math.max(epoch, this.#now.epoch) });
  }

  #advance(accountId: string, account: ModelAccount, what: What): LegResult {
    const before = account.epoch;
    account.version += 1;
    account.epoch = Math.max(account.epoch, this.#now.epoch);
    account.updatedAt = Math.max(this.#now.time, account.updatedAt);
    this.#note(accountId, account, before, what);
    const { balance, version, epoch, updatedAt } = account;
    return { amount: what.amount ?? 0, balance, version, epoch, createdAt: new Date(updatedAt).toISOString() };
  }

  #note(accountId: string, account: ModelAccount, previousEpoch: number | null, what: What): void {
    const { balance, held, version, epoch, updatedAt, overdraftLimit, maxBalance, status } = account;
    this.changes.push({
      ...{ accountId, version, epoch, previousEpoch, amount: 0, heldChange: 0, balance, held, createdAt: updatedAt },
      ...{ reference: null, metadata: null, actor: null, transferId: null, reverses: null, hold: null },
      ...what,
      limits: what.type.startsWith('account.') ? { overdraftLimit, maxBalance, status } : null,
    });
  }
}

function available({ balance, held, overdraftLimit }: ModelAccount): number {
  return Number(BigInt(balance) - BigInt(held) + BigInt(overdraftLimit));
}

function money(account: ModelAccount, amount: number, isReversal = false): string | undefined {
  const after = BigInt(account.balance) + BigInt(amount);
  if (after > BigInt(AMOUNT_MAX) || after < -BigInt(AMOUNT_MAX)) return 'balance_out_of_range';
  if (amount > 0) {
    const isAbove = account.maxBalance !== null && after > BigInt(account.maxBalance);
    return isAbove && !isReversal ? 'max_balance_exceeded' : undefined;
  }
  return after - BigInt(account.held) < -BigInt(account.overdraftLimit) ? 'insufficient_funds' : undefined;
}

function stateOf({ amount, captured, remaining, status, expiresAt, createdAt, updatedAt }: ModelHold): HoldState {
  return { amount, captured, remaining, status, expiresAt, createdAt, updatedAt };
}

function ofHold(id: string, { status, remaining, expiresAt }: ModelHold): NonNullable<ModelChange['hold']> {
  return { id, status, remaining, expiresAt };
}
